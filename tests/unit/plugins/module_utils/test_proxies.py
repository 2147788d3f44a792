"""Proxies: which there are, where they are, and what of the model each one holds."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

IDEMPOTENT = ["connect-failure", "refused-stream", "reset-before-request", "reset", "gateway-error"]


def built(inventory: str) -> dict[str, Any]:
    data = yaml.safe_load(inventory)
    return build_model(data.get("services"), data.get("fronts"), data.get("settings"))


def proxies(inventory: str) -> dict[str, dict[str, Any]]:
    return {proxy["name"]: proxy for proxy in built(inventory)["proxies"]}


# Sidecars


def test_a_sidecar_by_default() -> None:
    proxy = proxies("services: [{name: a, port: 8081}]")["a"]
    assert [item["name"] for item in proxy.pop("clusters")] == ["local_app", "envoy_admin"]
    assert [item["name"] for item in proxy.pop("listeners")] == ["ingress_8786", "metrics_9902"]
    assert set(proxy["envoy"].pop("http")) > {"max_headers", "trusted_hops"}
    assert proxy == {
        "name": "a",
        "workload": "a",
        "index": None,
        "zone": None,
        "kind": "sidecar",
        "addresses": {"listen": "0.0.0.0", "application": "127.0.0.1", "egress": "127.0.0.1", "admin": "127.0.0.1"},
        "paths": {"config": "/etc/envoy", "certificates": {}},
        "delivery": "files",
        "envoy": {
            "admin_port": 9901,
            "metrics": {"port": 9902},
            "health_path": "/healthz",
            "overload": {"max_heap": 2**30, "max_connections": 50000},
            "access_log": {"format": "text", "fields": None, "extra_fields": {}, "sample": 100},
            "log_level": "info",
            "log_format": "[%Y-%m-%d %T.%e][%t][%l][%n] %v",
            "concurrency": 1,
            "drain_time": "20s",
            "args": [],
            "image": None,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "volume_mounts": [],
        },
        "stats": {"keep": "dashboards", "also": []},
        "tracing": None,
        "siblings": None,
        "secrets": [],
        "control_plane": None,
        "bootstrap_patch": {},
    }


def test_no_sidecar_no_proxy() -> None:
    inventory = """
services:
  - {name: a, port: 8081, sidecar: false}
  - {name: b, port: 8081, discovery: static, endpoints: [{address: 10.0.0.1}]}
  - {name: c, port: 443, host: x.y}
  - {name: d, port: 80, versions: [{service: a, weight: 1}]}
"""
    assert proxies(inventory) == {}


def test_a_replica_has_its_own_address_for_everything() -> None:
    model = built("""
services: [{name: a, port: 80, command: [x], replicas: 2, zones: [x, y]}]
settings: {engine: local, name: m, state_path: /state}
""")
    for proxy, replica in zip(model["proxies"], model["replicas"], strict=True):
        own = replica["address"]
        assert set(proxy["addresses"].values()) == {own}
        assert {listener["address"] for listener in proxy["listeners"]} == {own}
        ends = [cluster["endpoints"] for cluster in proxy["clusters"]]
        assert ends == [[{"address": own, "port": port, "zone": None}] for port in (8080, 9901)]
        assert proxy["paths"]["config"] == f"/state/proxies/{replica['name']}"
        assert proxy["zone"] == replica["zone"]
    assert [proxy["zone"] for proxy in model["proxies"]] == ["x", "y"]


def test_what_the_mesh_says_holds_for_all() -> None:
    found = proxies("""
services: [{name: a, port: 80}]
fronts: [{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: a}]}]
settings: {stats: {also: [x]}, tracing: {host: otel, sampling: 5}, config_delivery: static}
""")
    for proxy in found.values():
        assert proxy["stats"] == {"keep": "dashboards", "also": ["x"]}
        assert proxy["tracing"] == {"host": "otel", "port": 4317, "protocol": "grpc", "sampling": 5}
        assert proxy["delivery"] == "static"
        assert "otel_collector" in [cluster["name"] for cluster in proxy["clusters"]]


# Fronts

FRONT = """
services:
  - {name: a, port: 8081, command: [x]}
  - {name: b, port: 8081, command: [x], protocol: grpc}
  - {name: q, port: 8081, command: [x], protocol: tcp, lb_policy: maglev, hash_on: {source_ip: true}}
fronts:
  - name: f
    replicas: 2
    listeners:
      - {port: 80, https_redirect: true}
      - {port: 443, tls: {secret: one}, envoy_patch: {listener: {l: 1}, http_connection_manager: {h: 1}}}
      - {port: 8444, tls: {secret: two}, protocol: tcp, service: q}
    virtual_hosts:
      - {name: v, domains: [v.w], routes: [{prefix: /, service: a, timeout: 9s, envoy_patch: {route: {r: 1}}}]}
    routes: [{grpc: x.Y, service: b}, {prefix: /, service: a}]
    upstreams: [{service: a, timeout: 4s, idempotent: true, connect_timeout: 7s, envoy_patch: {cluster: {c: 1}}}]
    envoy_patch: {bootstrap: {b: 1}}
    concurrency: 4
settings: {engine: local, state_path: /state}
"""


def test_a_front() -> None:
    first = proxies(FRONT)["f-1"]
    assert first["addresses"]["admin"] != "127.0.0.1"
    assert first["secrets"] == ["one", "two"]
    assert first["paths"]["certificates"] == {"one": "/state/certificates/one", "two": "/state/certificates/two"}
    assert (first["kind"], first["bootstrap_patch"], first["envoy"]["concurrency"]) == ("front", {"b": 1}, 4)
    listeners = first["listeners"]
    assert [item["name"] for item in listeners] == ["front_8080", "front_8443", "front_8444", "metrics_9902"]
    assert (listeners[1]["listener_patch"], listeners[1]["http_patch"]) == ({"l": 1}, {"h": 1})


def test_each_service_has_one_cluster_however_many_routes_name_it() -> None:
    first = proxies(FRONT)["f-1"]
    assert [cluster["name"] for cluster in first["clusters"]] == ["a", "b", "q", "envoy_admin"]
    assert (first["clusters"][0]["connect_timeout"], first["clusters"][0]["envoy_patch"]) == ("7s", {"c": 1})


def test_what_a_route_leaves_open_its_edge_decides() -> None:
    hosts = proxies(FRONT)["f-1"]["listeners"][1]["virtual_hosts"]
    assert [(host["name"], host["domains"]) for host in hosts] == [("v", ["v.w"]), ("default", ["*"])]
    own, (grpc, default) = hosts[0]["routes"][0], hosts[1]["routes"]
    assert (own["policy"]["timeout"], default["policy"]["timeout"], grpc["policy"]["timeout"]) == ("9s", "4s", "0s")
    assert own["policy"]["retries"] == default["policy"]["retries"]
    assert default["policy"]["retries"]["on"] == IDEMPOTENT
    assert grpc["policy"]["retries"]["on"] == IDEMPOTENT[:3]
    assert own["envoy_patch"] == {"r": 1}


@pytest.mark.parametrize(
    ("secrets", "folders"),
    [
        (["one"], {"one": "/etc/ssl/envoy"}),
        (["one", "one"], {"one": "/etc/ssl/envoy"}),
        (["two", "one"], {"one": "/etc/ssl/envoy/one", "two": "/etc/ssl/envoy/two"}),
    ],
)
def test_certificates_on_kubernetes(secrets: list[str], folders: dict[str, str]) -> None:
    listeners = [{"port": 443 + number, "tls": secret} for number, secret in enumerate(secrets)]
    front = {"name": "f", "listeners": listeners, "routes": [{"prefix": "/", "service": "a"}]}
    assert build_model([{"name": "a", "port": 80}], [front])["proxies"][1]["paths"]["certificates"] == folders


def test_a_certificate_that_is_shown_lies_where_those_that_are_served_lie() -> None:
    found = proxies("""
services:
  - {name: far, port: 443, host: x.y, tls: {client_certificate: me}}
  - {name: a, port: 80, upstreams: [{service: far, port: 9001}]}
fronts: [{name: f, listeners: [{port: 443, tls: served}], routes: [{prefix: /, service: far}]}]
""")
    assert (found["a"]["secrets"], found["a"]["paths"]["certificates"]) == (["me"], {"me": "/etc/ssl/envoy"})
    assert found["f"]["paths"]["certificates"] == {"me": "/etc/ssl/envoy/me", "served": "/etc/ssl/envoy/served"}
