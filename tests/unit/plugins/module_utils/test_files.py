"""A proxy's folder: which files, and what makes their versions."""

from __future__ import annotations

from typing import Any

import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import file_versions
from ansible_collections.sidecar.mesh.plugins.module_utils.files import (
    discovery_file,
    mesh_files,
    proxy_files,
    response,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

INVENTORY = """
services:
  - {name: a, port: 8081, upstreams: [{service: b, port: 9001}, {service: q, port: 9002}]}
  - {name: b, port: 8081, discovery: eds, endpoints: [{address: 10.0.0.1}]}
  - {name: q, port: 8081, protocol: tcp}
fronts:
  - {name: f, listeners: [{port: 443, tls: certs}, {port: 80, https_redirect: true}], routes: [{prefix: /, service: a}]}
"""


def model(inventory: str = INVENTORY) -> dict[str, Any]:
    data = yaml.safe_load(inventory)
    return build_model(data["services"], data.get("fronts"))


def test_a_folder_for_every_proxy() -> None:
    found = mesh_files(model())
    assert [{key: proxy[key] for key in proxy if key != "files"} for proxy in found] == [
        {"name": "a", "workload": "a", "kind": "sidecar", "folder": "/etc/envoy", "admin": "127.0.0.1:9901"},
        {"name": "q", "workload": "q", "kind": "sidecar", "folder": "/etc/envoy", "admin": "127.0.0.1:9901"},
        {"name": "f", "workload": "f", "kind": "front", "folder": "/etc/envoy", "admin": "127.0.0.1:9901"},
    ]
    assert [sorted(proxy["files"]) for proxy in found] == [
        ["bootstrap.yaml", "cds.yaml", "eds.b.yaml", "lds.yaml", "rds.egress_9001.yaml", "rds.ingress_8786.yaml"],
        ["bootstrap.yaml", "cds.yaml", "lds.yaml"],
        ["bootstrap.yaml", "cds.yaml", "lds.yaml", "rds.front_443.yaml", "rds.front_80.yaml", "sds.certs.yaml"],
    ]


def test_a_discovery_file_names_the_type_of_its_resources_and_hashes_them() -> None:
    text = discovery_file("envoy.config.cluster.v3.Cluster", [{"name": "b"}, {"name": "a"}])
    assert text == (
        "resources:\n"
        "- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n"
        "  name: b\n"
        "- '@type': type.googleapis.com/envoy.config.cluster.v3.Cluster\n"
        "  name: a\n"
        f"version_info: {file_versions({'cds.yaml': text})['cds.yaml']}\n"
    )
    assert len(file_versions({"x": text})["x"]) == 12
    assert response([]).startswith("resources: []\n")


def test_a_version_changes_with_its_file_and_with_nothing_else() -> None:
    before = file_versions(proxy_files(model()["proxies"][0]))
    changed = INVENTORY.replace("service: b, port: 9001", "service: b, port: 9001, timeout: 3s")
    after = file_versions(proxy_files(model(changed)["proxies"][0]))
    assert set(before) == {"cds.yaml", "lds.yaml", "eds.b.yaml", "rds.egress_9001.yaml", "rds.ingress_8786.yaml"}
    assert [name for name in before if before[name] != after[name]] == ["rds.egress_9001.yaml"]


def test_new_endpoints_change_no_cluster() -> None:
    before = proxy_files(model()["proxies"][0])
    after = proxy_files(model(INVENTORY.replace("10.0.0.1", "10.0.0.2"))["proxies"][0])
    assert [name for name in before if before[name] != after[name]] == ["eds.b.yaml"]
