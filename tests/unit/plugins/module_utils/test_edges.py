"""Edges: each setting of the way to a service decided, by the caller, the service, or a default."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import edges
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.proxies import every_edge

NO_DNS_SERVERS = {
    "refresh_rate": "5s",
    "jitter": "1s",
    "ttl": "30s",
    "query_timeout": "2s",
    "query_tries": 2,
    "resolvers": [],
}
OWN = {"endpoints": [{"address": "127.0.0.1", "port": 8081, "zone": None}], "outside": False, "envoy_patch": {}}
UNSET: dict[str, Any] = dict.fromkeys(
    (
        *("hash_on", "health_check", "connection", "circuit_breakers", "outlier_detection", "panic_threshold"),
        *("slow_start", "zone_aware", "tls", "token"),
    )
)


def proxies(inventory: str) -> dict[str, dict[str, Any]]:
    data = yaml.safe_load(inventory)
    model = build_model(data.get("services"), data.get("fronts"), data.get("settings"))
    return {proxy["name"]: proxy for proxy in model["proxies"]}


def clusters(inventory: str, name: str = "a") -> dict[str, dict[str, Any]]:
    """The edges of one proxy by their names."""
    return {cluster["name"]: cluster for cluster in proxies(inventory)[name]["clusters"]}


def edge(upstream: str, callee: str = "") -> dict[str, Any]:
    """The edge from service a to service b."""
    return clusters(f"""
services:
  - {{name: a, port: 8081, upstreams: [{{service: b, port: 9001, {upstream}}}]}}
  - {{name: b, port: 8082, {callee}}}
""")["b"]


def test_an_edge_by_default() -> None:
    assert edge("") == {
        **UNSET,
        "name": "b",
        "protocol": "http",
        "discovery": "dns",
        "lb_policy": "round_robin",
        "connect_timeout": "1s",
        "circuit_breakers": {
            "max_connections": 1024,
            "max_pending_requests": 1024,
            "max_requests": 1024,
            "max_retries": None,
            "retry_budget": {"percent": 50, "min_concurrency": 100},
        },
        "hostname": "b.default.svc.cluster.local",
        "port": 8786,
        "endpoints": [],
        "dns": NO_DNS_SERVERS,
        "outside": False,
        "envoy_patch": {},
    }


def test_edges_of_the_proxys_own() -> None:
    found = clusters("services: [{name: a, port: 8081, connect_timeout: 3s}]")
    plain = {**UNSET, **OWN, "discovery": "static", "lb_policy": "round_robin", "hostname": None, "dns": None}
    assert list(found) == ["local_app", "envoy_admin"]
    assert found["local_app"] == {
        **plain,
        "name": "local_app",
        "protocol": "http",
        "connect_timeout": "3s",
        "port": 8081,
    }
    admin = {"endpoints": [{"address": "127.0.0.1", "port": 9901, "zone": None}], "port": 9901}
    assert found["envoy_admin"] == {
        **plain,
        **admin,
        "name": "envoy_admin",
        "protocol": "http",
        "connect_timeout": "1s",
    }
    assert list(clusters("services: [{name: a, port: 8081, sidecar: {metrics: false}}]")) == ["local_app"]


def test_an_application_has_limits_of_its_own() -> None:
    found = clusters("services: [{name: a, port: 1, circuit_breakers: 5, sidecar: {circuit_breakers: 7}}]")
    assert found["local_app"]["circuit_breakers"]["max_requests"] == 7


@pytest.mark.parametrize(
    ("upstream", "callee", "expected"),
    [
        ("", "protocol: grpc", {"protocol": "grpc"}),
        ("", "sidecar: {port: 9000}", {"port": 9000}),
        ("", "sidecar: false", {"port": 8082}),
        (
            "",
            "discovery: eds, endpoints: [{address: 10.0.0.1, zone: x}, {address: 10.0.0.2, port: 1}]",
            {
                "discovery": "eds",
                "port": 8082,
                "endpoints": [
                    {"address": "10.0.0.1", "port": 8082, "zone": "x"},
                    {"address": "10.0.0.2", "port": 1, "zone": None},
                ],
            },
        ),
        ("envoy_patch: {cluster: {a: 1}}", "", {"envoy_patch": {"a": 1}}),
        # A service's own patch is for the cluster of its application.
        ("", "envoy_patch: {cluster: {a: 1}}", {"envoy_patch": {}}),
    ],
)
def test_what_an_edge_leads_to(upstream: str, callee: str, expected: dict[str, Any]) -> None:
    found = edge(upstream, callee)
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("key", "callers", "services"),
    [
        ("lb_policy", "least_request", "random"),
        ("hash_on", "{cookie: c}", "{header: h}"),
        ("connect_timeout", "250ms", "3s"),
        ("connection", "{max_requests: 1}", "{max_requests: 2}"),
        ("circuit_breakers", "1", "2"),
        ("outlier_detection", "{interval: 1s}", "{interval: 2s}"),
        ("outlier_detection", "false", "true"),
        ("panic_threshold", "0", "80"),
        ("slow_start", "1s", "2s"),
        ("health_check", "{interval: 1s}", "{interval: 2s}"),
    ],
)
def test_what_the_caller_says_goes_before_what_the_service_says(key: str, callers: str, services: str) -> None:
    alone = edge(f"{key}: {callers}")[key]
    assert edge("", f"{key}: {services}")[key] not in (alone, None)
    assert edge(f"{key}: {callers}", f"{key}: {services}")[key] == alone


@pytest.mark.parametrize(("policy", "starts"), [("random", False), ("least_request", True)])
def test_a_caller_that_chooses_otherwise_knows_no_slow_start(policy: str, starts: bool) -> None:
    assert bool(edge(f"lb_policy: {policy}", "slow_start: 1s")["slow_start"]) is starts


@pytest.mark.parametrize(
    ("upstream", "callee", "timeout", "outliers"),
    [
        ("", "", "1s", False),
        ("idempotent: false", "", "1s", False),
        ("idempotent: true", "", "0.25s", True),
        ("idempotent: true", "connect_timeout: 3s", "3s", True),
        ("idempotent: true, outlier_detection: false", "", "0.25s", False),
        ("idempotent: true", "outlier_detection: false", "0.25s", False),
        ("", "outlier_detection: true", "1s", True),
    ],
)
def test_an_idempotent_edge_gives_up_a_replica_soon(upstream: str, callee: str, timeout: str, outliers: bool) -> None:
    found = edge(upstream, callee)
    assert (found["connect_timeout"], bool(found["outlier_detection"])) == (timeout, outliers)


def test_an_edge_is_idempotent_when_a_route_to_it_is() -> None:
    found = clusters(
        """
services: [{name: a, port: 1}, {name: b, port: 1}, {name: v, port: 1, versions: [{service: b, weight: 1}]}]
fronts:
  - name: f
    listeners: [{port: 1}]
    routes: [{path: /v, service: v, idempotent: true}, {path: /a, service: a, idempotent: false}]
""",
        "f",
    )
    assert {name: found[name]["connect_timeout"] for name in "ab"} == {"a": "1s", "b": "0.25s"}
    assert found["b"]["outlier_detection"] == edges.IDEMPOTENT_OUTLIERS


# Health checks

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
        ("protocol: tls, health_check: {}", "tcp"),
        ("protocol: grpc, health_check: http", "http"),
        ("protocol: http, health_check: tcp", "tcp"),
    ],
)
def test_the_type_of_a_health_check_follows_the_protocol(callee: str, kind: str) -> None:
    assert edge("", callee)["health_check"] == {**HEALTH, "type": kind}


def test_a_health_check_is_made_by_callers_and_by_the_sidecar() -> None:
    inventory = """
services:
  - {name: a, port: 8081, upstreams: [{service: b, port: 9001}, {service: c, port: 9002, health_check: {interval: 3s}}]}
  - {name: b, port: 8082, health_check: {interval: 1s}}
  - {name: c, port: 8083, health_check: {interval: 2s}}
fronts: [{name: f, listeners: [{port: 1}], routes: [{path: /c, service: c}, {prefix: /, service: b}]}]
"""

    def intervals(name: str) -> list[str | None]:
        checks = [cluster["health_check"] for cluster in clusters(inventory, name).values()]
        return [check and check["interval"] for check in checks]

    assert intervals("a") == [None, "1s", "3s", None]
    assert intervals("b") == ["1s", None]
    assert intervals("f") == ["2s", "1s", None]


# Services elsewhere


@pytest.mark.parametrize(
    ("callee", "tls"),
    [
        ("host: x.y", None),
        ("host: x.y, tls: false", None),
        ("host: x.y, tls: true", {"server_name": "x.y", "ca_file": "/mesh.crt", "alpn": ["http/1.1"]}),
        (
            "host: x.y, protocol: grpc, tls: {server_name: z, ca_file: /own.crt, client_certificate: me}",
            {"server_name": "z", "ca_file": "/own.crt", "client_certificate": "me", "alpn": ["h2"]},
        ),
        (
            "host: x.y, protocol: tcp, tls: true",
            {"server_name": "x.y", "ca_file": "/mesh.crt", "alpn": []},
        ),
        (
            "discovery: static, endpoints: [{address: 10.0.0.1}], tls: {server_name: z}",
            {"server_name": "z", "ca_file": "/mesh.crt", "alpn": ["http/1.1"]},
        ),
    ],
)
def test_tls_to_a_service_elsewhere(callee: str, tls: dict[str, Any] | None) -> None:
    found = proxies(f"""
services:
  - {{name: a, port: 8081, upstreams: [{{service: b, port: 9001}}]}}
  - {{name: b, port: 443, {callee}}}
settings: {{ca_file: /mesh.crt}}
""")["a"]
    assert found["clusters"][1]["tls"] == (tls and {"client_certificate": None, **tls})
    assert found["secrets"] == ([tls["client_certificate"]] if tls and "client_certificate" in tls else [])


def test_a_host_is_asked_for_where_the_machine_asks() -> None:
    found = clusters(
        """
services:
  - {name: a, command: [x], port: 8081, upstreams: [{service: b, port: 9001}, {service: c, port: 9002}]}
  - {name: b, command: [x], port: 8081}
  - {name: c, port: 443, host: api.example.com}
settings: {engine: local}
""",
        "a-1",
    )
    inside, outside = found["b"], found["c"]
    assert (outside["hostname"], outside["port"], outside["outside"]) == ("api.example.com", 443, True)
    assert outside["dns"]["resolvers"] == []
    assert len(inside["dns"]["resolvers"]) == 1
    assert inside["outside"] is False


@pytest.mark.parametrize(
    ("settings", "resolvers"),
    [
        ("", []),
        ("dns: {resolvers: [{address: 10.0.0.10}]}", [{"address": "10.0.0.10", "port": 53}]),
        ("engine: local, name: demo", "own"),
        # Nobody else knows the names of a mesh on one machine.
        ("engine: local, dns: {resolvers: [{address: 10.0.0.10, port: 80}]}", "own"),
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


@pytest.mark.parametrize(
    ("tracing", "expected"),
    [
        ("{host: otel.obs}", {"discovery": "dns", "hostname": "otel.obs", "port": 4317, "protocol": "grpc"}),
        (
            "{host: 10.0.0.9, port: 4318, protocol: http}",
            {
                "discovery": "static",
                "protocol": "http",
                "endpoints": [{"address": "10.0.0.9", "port": 4318, "zone": None}],
            },
        ),
    ],
)
def test_the_collector_of_traces(tracing: str, expected: dict[str, Any]) -> None:
    found = clusters(f"services: [{{name: a, port: 1}}]\nsettings: {{tracing: {tracing}}}")
    assert list(found) == ["local_app", "otel_collector", "envoy_admin"]
    assert {key: found["otel_collector"][key] for key in expected} == expected
    assert found["otel_collector"]["outside"] is True


def test_what_is_no_http_has_no_traces() -> None:
    found = clusters("services: [{name: a, port: 1, protocol: tcp}]\nsettings: {tracing: {host: otel}}")
    assert list(found) == ["local_app", "envoy_admin"]


# Replicas and zones


def test_endpoints_are_the_replicas_that_do_not_rest() -> None:
    data = yaml.safe_load("""
services: [{name: a, port: 8081, command: [x], replicas: 3, zones: [x, y]}]
fronts: [{name: f, listeners: [{port: 8000}], routes: [{prefix: /, service: a}]}]
settings: {engine: local, resting: [a-2]}
""")
    model = build_model(data["services"], data["fronts"], data["settings"])
    address = {replica["name"]: replica["address"] for replica in model["replicas"]}
    front = next(proxy for proxy in model["proxies"] if proxy["name"] == "f-1")
    assert front["clusters"][0]["endpoints"] == [
        {"address": address["a-1"], "port": 8786, "zone": "x"},
        {"address": address["a-3"], "port": 8786, "zone": "x"},
    ]


def test_zones_take_the_replicas_of_the_callers_own_workload() -> None:
    found = proxies("""
services:
  - {name: a, port: 1, command: [x], replicas: 2, zones: [x, y], upstreams: [{service: b, port: 9001}]}
  - {name: b, port: 1, command: [x], replicas: 2, zones: [y, z], discovery: eds, zone_aware: true}
fronts:
  - {name: f, zones: [x], listeners: [{port: 80}], routes: [{prefix: /, service: b}]}
  - {name: g, listeners: [{port: 81}], routes: [{prefix: /, service: b}], upstreams: [{service: b, zone_aware: false}]}
settings: {engine: local}
""")
    caller = found["a-2"]
    assert caller["zone"] == "y"
    assert caller["clusters"][1]["zone_aware"] == {"min_replicas": 2}
    assert [endpoint["zone"] for endpoint in caller["clusters"][1]["endpoints"]] == ["y", "z"]
    siblings = caller["siblings"]
    assert (siblings["name"], siblings["discovery"]) == ("a", "eds")
    assert [(item["port"], item["zone"]) for item in siblings["endpoints"]] == [(8786, "x"), (8786, "y")]
    assert [(item["port"], item["zone"]) for item in found["f-1"]["siblings"]["endpoints"]] == [(8080, "x")]
    assert found["g-1"]["siblings"] is None
    assert found["g-1"]["clusters"][0]["zone_aware"] is None
    assert found["b-1"]["siblings"] is None


# Versions and mirrors

VERSIONS = """
services:
  - name: a
    port: 8081
    upstreams:
      - {service: shop, port: 9001, connect_timeout: 2s, mirror: next}
      - {service: v2, port: 9002, connect_timeout: 3s}
  - {name: shop, port: 80, versions: [{service: v1, weight: 9}, {service: v2, weight: 1}]}
  - {name: v1, port: 8081}
  - {name: v2, port: 8081}
  - {name: next, port: 8081}
fronts:
  - name: f
    listeners: [{port: 1}]
    routes: [{path: /a, service: a, mirror: {service: next, percent: 1}}, {prefix: /, service: shop}]
    upstreams:
      - {service: shop, connect_timeout: 4s}
      - {service: v1, connect_timeout: 5s, envoy_patch: {cluster: {c: 1}}}
"""


def test_each_version_has_an_edge_and_their_name_has_none() -> None:
    found = clusters(VERSIONS)
    assert list(found) == ["local_app", "v1", "v2", "next", "envoy_admin"]
    assert {name: found[name]["connect_timeout"] for name in ("v1", "v2", "next")} == {
        "v1": "2s",
        "v2": "3s",
        "next": "1s",
    }
    assert list(proxies(VERSIONS)) == ["a", "v1", "v2", "next", "f"]


def test_a_front_may_say_of_a_version_what_it_does_not_say_of_all() -> None:
    found = clusters(VERSIONS, "f")
    assert list(found) == ["a", "v1", "v2", "next", "envoy_admin"]
    assert (found["v1"]["connect_timeout"], found["v1"]["envoy_patch"]) == ("5s", {"c": 1})
    assert (found["v2"]["connect_timeout"], found["v2"]["envoy_patch"]) == ("4s", {})


def test_a_service_that_is_only_a_name_is_no_edge() -> None:
    data = yaml.safe_load(VERSIONS)
    model = build_model(data["services"])
    found = every_edge(model["mesh"], model["services"], model["replicas"])
    assert [item["name"] for item in found] == ["a", "v1", "v2", "next"]
