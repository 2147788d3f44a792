"""Proxies: every default and reference resolved, so that builders decide nothing."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.proxies import every_edge, match

IDEMPOTENT = ["connect-failure", "refused-stream", "reset-before-request", "reset", "gateway-error"]
SAFE = IDEMPOTENT[:3]
NO_DNS_SERVERS = {"refresh_rate": "5s", "jitter": "1s", "query_timeout": "2s", "query_tries": 2, "resolvers": []}


def built(inventory: str) -> dict[str, Any]:
    data = yaml.safe_load(inventory)
    return build_model(data.get("services"), data.get("fronts"), data.get("settings"))


def proxies(inventory: str) -> dict[str, dict[str, Any]]:
    return {proxy["name"]: proxy for proxy in built(inventory)["proxies"]}


def call(upstream: str, callee: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Cluster and route of the edge from service a to service b."""
    found = proxies(f"""
services:
  - {{name: a, port: 8081, upstreams: [{{service: b, port: 9001, {upstream}}}]}}
  - {{name: b, port: 8082, {callee}}}
""")["a"]
    routes = [route for host in found["listeners"][1]["virtual_hosts"] for route in host["routes"]]
    return found["clusters"][1], routes[0] if routes else {}


# Edges


def test_an_edge_by_default() -> None:
    cluster, route = call("")
    assert cluster == {
        "name": "b",
        "protocol": "http",
        "discovery": "dns",
        "lb_policy": "round_robin",
        "hash_on": None,
        "connect_timeout": "1s",
        "health_check": None,
        "hostname": "b.default.svc.cluster.local",
        "port": 8786,
        "endpoints": [],
        "dns": NO_DNS_SERVERS,
        "envoy_patch": {},
    }
    assert route == {
        "match": {"prefix": "/", "headers": [], "grpc": False},
        "cluster": "b",
        "policy": {
            "timeout": "15s",
            "grpc_deadline": False,
            "retries": {"count": 2, "on": SAFE, "per_try_timeout": None},
            "prefix_rewrite": None,
            "host_rewrite": None,
        },
        "hash_on": None,
        "envoy_patch": {},
    }


@pytest.mark.parametrize(
    ("upstream", "callee", "expected"),
    [
        ("", "connect_timeout: 3s", {"connect_timeout": "3s"}),
        ("connect_timeout: 250ms", "connect_timeout: 3s", {"connect_timeout": "0.25s"}),
        ("idempotent: true", "", {"connect_timeout": "0.25s"}),
        ("idempotent: true", "connect_timeout: 3s", {"connect_timeout": "3s"}),
        ("", "lb_policy: random", {"lb_policy": "random"}),
        ("lb_policy: least_request", "lb_policy: random", {"lb_policy": "least_request"}),
        ("", "protocol: grpc", {"protocol": "grpc"}),
        ("", "sidecar: {port: 9000}", {"port": 9000}),
        ("", "sidecar: false", {"port": 8082}),
        (
            "",
            "discovery: eds, endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2, port: 1}]",
            {
                "discovery": "eds",
                "port": 8082,
                "endpoints": [{"address": "10.0.0.1", "port": 8082}, {"address": "10.0.0.2", "port": 1}],
            },
        ),
        ("envoy_patch: {cluster: {a: 1}}", "", {"envoy_patch": {"a": 1}}),
        # A service's own patch is for the cluster of its application.
        ("", "envoy_patch: {cluster: {a: 1}}", {"envoy_patch": {}}),
    ],
)
def test_the_cluster_of_an_edge(upstream: str, callee: str, expected: dict[str, Any]) -> None:
    cluster, _rest = call(upstream, callee)
    assert {key: cluster[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("upstream", "callee", "expected"),
    [
        ("", "protocol: grpc", {"timeout": "0s", "grpc_deadline": True}),
        ("timeout: 3s", "protocol: grpc", {"timeout": "3s", "grpc_deadline": False}),
        ("timeout: 0", "", {"timeout": "0s", "grpc_deadline": False}),
        ("timeout: 500ms", "", {"timeout": "0.5s"}),
        ("retries: 0", "", {"retries": {"count": 0, "on": SAFE, "per_try_timeout": None}}),
        ("retries: 5", "", {"retries": {"count": 5, "on": SAFE, "per_try_timeout": None}}),
        ("retries: {on: [5xx]}", "", {"retries": {"count": 2, "on": ["5xx"], "per_try_timeout": None}}),
        ("idempotent: true", "", {"retries": {"count": 4, "on": IDEMPOTENT, "per_try_timeout": "1s"}}),
        ("idempotent: false", "", {"retries": {"count": 2, "on": SAFE, "per_try_timeout": None}}),
        (
            "idempotent: true, retries: {count: 1, per_try_timeout: 3s}",
            "",
            {"retries": {"count": 1, "on": IDEMPOTENT, "per_try_timeout": "3s"}},
        ),
        ("prefix_rewrite: /x, host_rewrite: y", "", {"prefix_rewrite": "/x", "host_rewrite": "y"}),
    ],
)
def test_the_policy_of_an_edge(upstream: str, callee: str, expected: dict[str, Any]) -> None:
    _rest, route = call(upstream, callee)
    assert {key: route["policy"][key] for key in expected} == expected


def test_what_a_callee_says_about_hashing_holds_for_its_callers() -> None:
    cluster, route = call("", "lb_policy: maglev, hash_on: {header: h}")
    assert cluster["hash_on"] == route["hash_on"] == {"header": "h", "cookie": None, "source_ip": None}
    cluster, route = call("hash_on: {cookie: c}", "lb_policy: maglev, hash_on: {header: h}")
    assert cluster["hash_on"] == route["hash_on"] == {"header": None, "cookie": "c", "source_ip": None}


HEALTH = {
    "type": "http",
    "path": "/healthz",
    "grpc_service": "",
    "interval": "10s",
    "unhealthy_interval": "2s",
    "timeout": "1s",
    "healthy_threshold": 2,
    "unhealthy_threshold": 2,
}


@pytest.mark.parametrize(
    ("callee", "kind"),
    [
        ("health_check: {}", "http"),
        ("protocol: http2, health_check: {}", "http"),
        ("protocol: grpc, health_check: {}", "grpc"),
        ("protocol: tcp, health_check: {}", "tcp"),
        ("protocol: grpc, health_check: http", "http"),
        ("protocol: http, health_check: tcp", "tcp"),
    ],
)
def test_the_type_of_a_health_check_follows_the_protocol(callee: str, kind: str) -> None:
    cluster, _rest = call("", callee)
    assert cluster["health_check"] == {**HEALTH, "type": kind}


def test_a_health_check_is_made_by_callers_and_by_the_sidecar() -> None:
    found = proxies("""
services:
  - {name: a, port: 8081, upstreams: [{service: b, port: 9001}, {service: c, port: 9002, health_check: {interval: 3s}}]}
  - {name: b, port: 8082, health_check: {interval: 1s}}
  - {name: c, port: 8083, health_check: {interval: 2s}}
fronts: [{name: f, listeners: [{port: 1}], routes: [{path: /c, service: c}, {prefix: /, service: b}]}]
""")

    def intervals(name: str) -> list[str | None]:
        checks = [cluster["health_check"] for cluster in found[name]["clusters"]]
        return [check and check["interval"] for check in checks]

    assert intervals("a") == [None, "1s", "3s"]
    assert intervals("b") == ["1s"]
    assert intervals("f") == ["2s", "1s"]


# Sidecars


def test_a_sidecar_by_default() -> None:
    proxy = proxies("services: [{name: a, port: 8081}]")["a"]
    listener = proxy["listeners"][0]
    assert proxy == {
        "name": "a",
        "workload": "a",
        "index": None,
        "kind": "sidecar",
        "addresses": {"listen": "0.0.0.0", "application": "127.0.0.1", "egress": "127.0.0.1", "admin": "127.0.0.1"},
        "paths": {"config": "/etc/envoy", "certificates": {}},
        "delivery": "files",
        "envoy": {
            "admin_port": 9901,
            "health_path": "/healthz",
            "access_log": {"format": "text"},
            "log_level": "info",
            "log_format": "[%Y-%m-%d %T.%e][%t][%l][%n] %v",
            "concurrency": 1,
            "drain_time": "20s",
            "args": [],
        },
        "clusters": [
            {
                "name": "local_app",
                "protocol": "http",
                "discovery": "static",
                "lb_policy": "round_robin",
                "connect_timeout": "1s",
                "health_check": None,
                "hostname": None,
                "port": 8081,
                "endpoints": [{"address": "127.0.0.1", "port": 8081}],
                "envoy_patch": {},
            }
        ],
        "listeners": [listener],
        "secrets": [],
        "bootstrap_patch": {},
    }
    assert listener == {
        "name": "ingress_8786",
        "direction": "ingress",
        "address": "0.0.0.0",
        "port": 8786,
        "protocol": "http",
        "cluster": None,
        "hash_on": None,
        "virtual_hosts": [
            {
                "name": "ingress",
                "domains": ["*"],
                "routes": [
                    {
                        "match": {"prefix": "/", "headers": [], "grpc": False},
                        "cluster": "local_app",
                        "policy": {
                            "timeout": "0s",
                            "grpc_deadline": False,
                            "retries": None,
                            "prefix_rewrite": None,
                            "host_rewrite": None,
                        },
                        "hash_on": None,
                        "envoy_patch": {},
                    }
                ],
            }
        ],
        "health_path": "/healthz",
        "access_log": {"format": "text"},
        "tls": None,
        "https_redirect": False,
        "listener_patch": {},
        "http_patch": {},
    }


def test_no_sidecar_no_proxy() -> None:
    inventory = """
services:
  - {name: a, port: 8081, sidecar: false}
  - {name: b, port: 8081, discovery: static, endpoints: [{address: 10.0.0.1}]}
"""
    assert proxies(inventory) == {}


def test_a_replica_has_its_own_address_for_everything() -> None:
    model = built("""
services: [{name: a, port: 80, command: [x], replicas: 2}]
settings: {engine: local, name: m, state_path: /state}
""")
    for proxy, replica in zip(model["proxies"], model["replicas"], strict=True):
        assert set(proxy["addresses"].values()) == {replica["address"]}
        assert proxy["listeners"][0]["address"] == replica["address"]
        assert proxy["clusters"][0]["endpoints"] == [{"address": replica["address"], "port": 8080}]
        assert proxy["paths"]["config"] == f"/state/proxies/{replica['name']}"


def test_egress_has_a_listener_for_each_upstream_with_a_port_and_one_for_the_rest() -> None:
    proxy = proxies("""
services:
  - name: a
    port: 8081
    egress: {mode: shared, port: 15002}
    sidecar: {access_log: none}
    upstreams:
      - {service: b, port: 9001, envoy_patch: {listener: {l: 1}, http_connection_manager: {h: 1}, route: {r: 1}}}
      - {service: q, port: 9002}
      - {service: c}
      - {service: d, match: {hosts: [x], prefix: /d}}
      - {service: e, match: {hosts: [x]}}
  - {name: b, port: 8081}
  - {name: q, port: 8081, protocol: tcp, lb_policy: maglev, hash_on: {source_ip: true}}
  - {name: c, port: 8081}
  - {name: d, port: 8081}
  - {name: e, port: 8081, protocol: grpc}
""")["a"]
    listeners = {listener["name"]: listener for listener in proxy["listeners"]}
    assert list(listeners) == ["ingress_8786", "egress_9001", "egress_9002", "egress_15002"]
    for name in list(listeners)[1:]:
        assert listeners[name]["address"] == "127.0.0.1"
        assert listeners[name]["health_path"] is None
        assert listeners[name]["access_log"] == {"format": "none"}
    assert (listeners["egress_9001"]["listener_patch"], listeners["egress_9001"]["http_patch"]) == ({"l": 1}, {"h": 1})
    assert listeners["egress_9001"]["virtual_hosts"][0]["routes"][0]["envoy_patch"] == {"r": 1}
    assert listeners["egress_9002"]["cluster"] == "q"
    assert listeners["egress_9002"]["virtual_hosts"] == []
    assert listeners["egress_9002"]["hash_on"]["source_ip"] is True
    shared = [
        (host["name"], host["domains"], [(route["cluster"], route["match"]["prefix"]) for route in host["routes"]])
        for host in listeners["egress_15002"]["virtual_hosts"]
    ]
    assert shared == [
        ("c", ["c", "c.default", "c.default.svc", "c.default.svc.cluster.local"], [("c", "/")]),
        ("d", ["x"], [("d", "/d"), ("e", "/")]),
    ]
    assert [cluster["name"] for cluster in proxy["clusters"]] == ["local_app", "b", "q", "c", "d", "e"]


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
    found = proxies(FRONT)
    first, second = found["f-1"], found["f-2"]
    own = second["addresses"]["listen"]
    assert [(item["name"], item["address"]) for item in first["listeners"]] == [
        ("front_8080", "127.0.0.1"),
        ("front_8443", "127.0.0.1"),
        ("front_8444", "127.0.0.1"),
    ]
    assert {item["address"] for item in second["listeners"]} == {own}
    assert first["addresses"]["admin"] != "127.0.0.1"
    assert [(item["tls"], item["https_redirect"]) for item in first["listeners"]] == [
        (None, True),
        ("one", False),
        ("two", False),
    ]
    assert first["secrets"] == ["one", "two"]
    assert first["paths"]["certificates"] == {"one": "/state/certificates/one", "two": "/state/certificates/two"}
    assert (first["kind"], first["bootstrap_patch"], first["envoy"]["concurrency"]) == ("front", {"b": 1}, 4)
    assert (first["listeners"][1]["listener_patch"], first["listeners"][1]["http_patch"]) == ({"l": 1}, {"h": 1})
    assert first["listeners"][2]["hash_on"]["source_ip"] is True


def test_each_service_has_one_cluster_however_many_routes_name_it() -> None:
    first = proxies(FRONT)["f-1"]
    assert [cluster["name"] for cluster in first["clusters"]] == ["a", "b", "q"]
    assert (first["clusters"][0]["connect_timeout"], first["clusters"][0]["envoy_patch"]) == ("7s", {"c": 1})


def test_what_a_route_leaves_open_its_edge_decides() -> None:
    hosts = proxies(FRONT)["f-1"]["listeners"][1]["virtual_hosts"]
    assert [(host["name"], host["domains"]) for host in hosts] == [("v", ["v.w"]), ("default", ["*"])]
    own, (grpc, default) = hosts[0]["routes"][0], hosts[1]["routes"]
    assert (own["policy"]["timeout"], default["policy"]["timeout"], grpc["policy"]["timeout"]) == ("9s", "4s", "0s")
    assert own["policy"]["retries"] == default["policy"]["retries"]
    assert default["policy"]["retries"]["on"] == IDEMPOTENT
    assert grpc["policy"]["retries"]["on"] == SAFE
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


# Replicas and DNS


def test_endpoints_are_the_replicas_that_do_not_rest() -> None:
    model = built("""
services: [{name: a, port: 8081, command: [x], replicas: 3}]
fronts: [{name: f, listeners: [{port: 8000}], routes: [{prefix: /, service: a}]}]
settings: {engine: local, resting: [a-2]}
""")
    address = {replica["name"]: replica["address"] for replica in model["replicas"]}
    front = next(proxy for proxy in model["proxies"] if proxy["name"] == "f-1")
    assert front["clusters"][0]["endpoints"] == [
        {"address": address["a-1"], "port": 8786},
        {"address": address["a-3"], "port": 8786},
    ]


@pytest.mark.parametrize(
    ("settings", "resolvers"),
    [
        ("", []),
        ("dns: {resolvers: [{address: 10.0.0.10}]}", [{"address": "10.0.0.10", "port": 53}]),
        ("engine: local, name: demo", "own"),
        ("engine: local, dns: {resolvers: [{address: 10.0.0.10, port: 80}]}", [{"address": "10.0.0.10", "port": 80}]),
    ],
)
def test_resolvers(settings: str, resolvers: Any) -> None:
    data = yaml.safe_load(f"{{{settings}}}")
    services = [{"name": "b", "port": 8082, "command": ["x"]}]
    model = build_model(services, None, data)
    found = every_edge(model["mesh"], model["services"], model["replicas"])[0]["dns"]["resolvers"]
    if resolvers == "own":
        assert len(found) == 1
        assert found[0]["address"].endswith(".254")
        assert found[0]["port"] == 8053
    else:
        assert found == resolvers


# Matches


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"prefix": "/a"}, {"prefix": "/a", "headers": [], "grpc": False}),
        ({"path": "/a"}, {"path": "/a", "headers": [], "grpc": False}),
        ({"regex": "a+"}, {"regex": "a+", "headers": [], "grpc": False}),
        ({"grpc": "a.B"}, {"prefix": "/a.B/", "headers": [], "grpc": True}),
        ({"grpc": "a.B/C"}, {"path": "/a.B/C", "headers": [], "grpc": True}),
        ({"headers": [{"name": "x"}]}, {"prefix": "/", "headers": [{"name": "x"}], "grpc": False}),
    ],
)
def test_matches(settings: dict[str, Any], expected: dict[str, Any]) -> None:
    empty = dict.fromkeys(("prefix", "path", "regex", "grpc", "headers"))
    assert match({**empty, **settings}) == expected
