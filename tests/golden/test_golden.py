"""Named inventories, and every file made of them. What changes a byte shows here; the real Envoy has the last word.

``pytest tests/golden --update-golden`` rewrites what is expected.
"""

from __future__ import annotations

import difflib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml, schema
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from ansible_collections.sidecar.mesh.plugins.module_utils.render import rendered
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Cache, Config, Envoy, validate
from golden.cases import CASES, demo, model_of
from golden.certificates import with_certificates
from golden.rules import broken

BIN = Path(sys.executable).parent

Files = dict[str, str]
"""Text by path below the case's folder ``out``."""


def load(case: Path) -> dict[str, Any]:
    return model_of(yaml.safe_load((case / "inventory.yml").read_text()))


def files_of(model: dict[str, Any]) -> Files:
    """What the model is rendered as. A ConfigMap's data, which are the proxy's files again, are left out."""
    files = {f"{proxy['name']}/{name}": text for proxy in mesh_files(model) for name, text in proxy["files"].items()}
    if model["mesh"]["engine"] != "kubernetes":
        return files
    for path, text in rendered(model).items():
        if path.startswith("manifests/"):
            data = {key: value for key, value in envoy_yaml.load(text).items() if key != "data"}
            files[path] = envoy_yaml.dump(data) if path.endswith("/configmap.yaml") else text
    for kind, policies in policies_of(model).items():
        files[f"policies/{kind}.yaml"] = envoy_yaml.dump(policies)
    return files


def policies_of(model: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {kind: list(mesh_policies(model, kind).values()) for kind in ("cilium", "kubernetes")}


def objects_of(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for workload in mesh_manifests(model) for item in workload["objects"]]


def read(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.yaml"))}


def rewrite(folder: Path, files: Files) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def differences(expected: Files, found: Files) -> str:
    """As a diff; empty when there is none."""
    lines: list[str] = []
    for name in sorted(expected.keys() | found.keys()):
        texts = [files.get(name, "").splitlines() for files in (expected, found)]
        lines += difflib.unified_diff(*texts, f"expected/{name}", f"found/{name}", lineterm="", n=2)
    return "\n".join(lines)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_every_byte(case: Path, request: pytest.FixtureRequest) -> None:
    found = files_of(load(case))
    if request.config.getoption("update_golden", default=False):
        rewrite(case / "out", found)
    difference = differences(read(case / "out"), found)
    assert not difference, f"If that is meant: pytest tests/golden --update-golden\n{difference}"


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_rules(case: Path) -> None:
    for proxy in mesh_files(load(case)):
        assert broken(proxy["files"]) == []


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_the_real_envoy_accepts_it(case: Path, envoy: Envoy, certificates: Path) -> None:
    model = load(case)
    configs = []
    for proxy, made in zip(model["proxies"], mesh_files(model), strict=True):
        files = {name: with_certificates(text, certificates) for name, text in made["files"].items()}
        configs.append(Config(proxy["name"], files, arguments(proxy, proxy["name"])))
    report = validate(configs, envoy, Cache(None), os.cpu_count() or 1)
    assert (report.problems, report.unchecked) == ([], [])
    assert report.validated == [config.name for config in configs]


def test_the_shipped_systems_are_one_mesh() -> None:
    """Together they have the same files as alone: none is in another's way."""
    together = files_of(model_of(demo()))
    alone: Files = {}
    for case in CASES:
        if "shipped" in yaml.safe_load((case / "inventory.yml").read_text()):
            alone |= files_of(load(case))
    assert differences(alone, together) == ""


def keys_of(field: Any, path: str) -> Iterator[str]:
    """The path of every key below a field of the schema."""
    for key, inner in field.get("fields", {}).items():
        yield f"{path}.{key}"
        yield from keys_of(inner, f"{path}.{key}")
    if "items" in field:
        yield from keys_of(field["items"], f"{path}[]")


def used(value: Any, field: Any, path: str) -> Iterator[str]:
    """The path of every key that an inventory's value names."""
    if "items" in field and isinstance(value, list):
        for item in value:
            yield from used(item, field["items"], f"{path}[]")
    elif "fields" in field:
        items = value if isinstance(value, dict) else {field.get("shorthand"): value}
        for name, item in items.items():
            key = "on" if name is True else name
            if key in field["fields"]:
                yield f"{path}.{key}"
                yield from used(item, field["fields"][key], f"{path}.{key}")


def last_parts(paths: set[str]) -> set[str]:
    """Keys by their last two names: what means the same in several places needs one of them."""
    return {".".join(path.split(".")[-2:]) for path in paths}


def test_every_key_is_in_some_case() -> None:
    """A key that no case has would come into the world unseen by Envoy."""
    roots = {**schema.SECTIONS, **{f"mesh_{name}": field for name, field in schema.MESH.items()}}
    every = {path for name, field in roots.items() for path in (name, *keys_of(field, name))}
    found = {"mesh_state_path", "mesh_services[].directory", "mesh_services[].environment"}
    for case in CASES:
        data = yaml.safe_load((case / "inventory.yml").read_text())
        for name in data.keys() & roots.keys():
            found |= {name, *used(data[name], roots[name], name)}
    assert sorted(last_parts(every) - last_parts(found)) == []


# The rules themselves

ONE = """
mesh_engine: local
mesh_services:
  - name: a
    command: [x]
    port: 8081
    zones: [z]
    upstreams: [{service: b, port: 9001}, {service: c, port: 9002, discovery: eds}, {service: o, port: 9003}]
  - {name: b, command: [x], port: 8081, health_check: {}}
  - {name: c, command: [x], port: 8081, zone_aware: true, discovery: eds, zones: [z]}
  - {name: o, port: 443, host: o.example.com, tls: true}
  - {name: s, command: [x], port: 8081, protocol: tls}
  - {name: t, command: [x], port: 8081, protocol: tls}
mesh_front_proxies:
  - name: f
    zones: [z]
    listeners: [{port: 8000}, {port: 8001, tls: certs}, {port: 8002, protocol: tls, services: [s, t]}]
    routes: [{path: /a, service: a}, {prefix: /, service: c}]
"""


@pytest.mark.parametrize(
    ("proxy", "file", "old", "new", "rule"),
    [
        ("a-1", "lds.yaml", "reuse_port: false", "reuse_port: true", "ingress_8786: may share its port"),
        ("a-1", "lds.yaml", "name: egress_9001", "name: ingress_8786", "listener ingress_8786: 2 times"),
        ("a-1", "lds.yaml", "port_value: 9001", "port_value: 9002", "egress_9001: listens on 9002"),
        ("a-1", "lds.yaml", "normalize_path: true", "normalize_path: false", "ingress_8786: normalize_path is off"),
        (
            "a-1",
            "lds.yaml",
            "route_config_name: egress_9001",
            "route_config_name: x",
            "egress_9001: has the routes None",
        ),
        ("a-1", "bootstrap.yaml", "address: 127.", "address: 10.", "admin: listens on 10."),
        ("a-1", "cds.yaml", "  name: b\n", "  name: d\n", "b: there is no such cluster"),
        ("a-1", "cds.yaml", "  name: b\n", "  name: d\n", "d: nobody uses this cluster"),
        ("a-1", "cds.yaml", "removal: true", "removal: false", "b: a replica that left stays"),
        ("a-1", "cds.yaml", "hostname: b.default.svc.cluster.local", "hostname: b.", "b: a host name with a dot"),
        ("a-1", "cds.yaml", "b.default.svc.cluster.local.\n", "b\n", "b: DNS is asked for a name without a dot"),
        ("a-1", "cds.yaml", "  connect_timeout: 1s\n", "", "local_app: leaves something to Envoy's defaults"),
        ("a-1", "cds.yaml", "type: EDS", "type: STATIC", "c: EDS and no file, or a file and no EDS"),
        ("a-1", "cds.yaml", "ROUND_ROBIN", "'ROUND_ROBIN'", "cds.yaml: is not in its canonical form"),
        ("a-1", "eds.c.yaml", "cluster_name: c", "cluster_name: d", "c: the file holds d"),
        ("a-1", "rds.egress_9001.yaml", "name: egress_9001", "name: x", "egress_9001: the file holds x"),
        ("a-1", "rds.egress_9001.yaml", "cluster: b", "cluster: c", "rds.egress_9001.yaml: its version is not"),
        ("f-1", "lds.yaml", "address: true", "address: false", "front_8000: use_remote_address"),
        (
            "f-1",
            "sds.certs.yaml",
            "filename: /state/certificates/certs/tls.key",
            "inline_string: x",
            "certs: a private key",
        ),
        ("a-1", "bootstrap.yaml", "overload_manager:", "overload:", "overload_manager: "),
        ("f-1", "bootstrap.yaml", "local_cluster_name: f", "local_cluster_name: g", "cluster_manager: g is not there"),
        ("f-1", "lds.yaml", "bypass_overload_manager: true", "other: true", "metrics_9902: bypass_overload_manager"),
        (
            "f-1",
            "lds.yaml",
            "path: /config_versions",
            "prefix: /config_versions",
            "metrics_9902: more than reading",
        ),
        ("f-1", "lds.yaml", "cluster: t\n", "cluster: envoy_admin\n", "front_8002: leads to the admin interface"),
        ("f-1", "lds.yaml", "- s.default\n", "- t.default\n", "front_8002: server name t.default: 2 times"),
        ("a-1", "cds.yaml", "match_typed_subject_alt_names", "match", "o: believes any certificate"),
        ("f-1", "sds.certs.yaml", "watched_directory", "watched", "certs: a new one would not be seen"),
    ],
)
def test_each_rule_can_be_broken(proxy: str, file: str, old: str, new: str, rule: str) -> None:
    made = {item["name"]: item["files"] for item in mesh_files(model_of(yaml.safe_load(ONE)))}
    files = dict(made[proxy])
    assert broken(files) == []
    assert old in files[file]
    files[file] = files[file].replace(old, new)
    assert [line for line in broken(files) if line.startswith(rule)] != []
