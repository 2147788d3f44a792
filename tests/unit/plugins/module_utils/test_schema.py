"""The schema's tables agree with themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import schema, schema_edge, schema_proxy
from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import PATTERNS
from ansible_collections.sidecar.mesh.plugins.module_utils.values import duration

TYPES = {"str", "int", "number", "bool", "duration", "bytes", "dict", "list", "map", "any", "toggle"}
KEYS = {
    *("type", "description", "default", "required", "choices", "minimum", "maximum", "pattern", "fields", "items"),
    *("shorthand", "example", "keys"),
}
ROOTS = {**schema.SECTIONS, "mesh": {"type": "dict", "fields": schema.MESH}, "mesh_checks": schema.CHECKS}


def fields(field: schema.Field, path: str) -> Iterator[tuple[str, schema.Field]]:
    yield path, field
    for key, inner in field.get("fields", {}).items():
        yield from fields(inner, f"{path}.{key}")
    if "items" in field:
        yield from fields(field["items"], f"{path}[]")


EVERY = dict(pair for name, root in ROOTS.items() for pair in fields(root, name))


@pytest.mark.parametrize("path", EVERY)
def test_a_field_says_what_it_may_say(path: str) -> None:
    field = EVERY[path]
    assert field["type"] in TYPES
    assert set(field) <= KEYS
    assert ("fields" in field) == (field["type"] in ("dict", "toggle"))
    assert ("items" in field) == (field["type"] in ("list", "map"))
    assert field.get("shorthand") in (None, *field.get("fields", ()))
    assert field.get("pattern") in (None, *PATTERNS)
    assert field.get("keys") in (None, *PATTERNS)
    assert not ("default" in field and field.get("required"))
    assert field["type"] in ("int", "number", "duration", "bytes") or not {"minimum", "maximum"} & set(field)
    assert field.get("minimum", 0) <= field.get("maximum", field.get("minimum", 0))
    if not path.endswith("[]") and path not in ("mesh", "mesh_checks"):
        assert re.fullmatch(r"\S.*[.]", field["description"]) or "/" in field["description"]


@pytest.mark.parametrize("path", [path for path, field in EVERY.items() if {"default", "example"} & set(field)])
def test_defaults_and_examples_are_allowed(path: str) -> None:
    field = EVERY[path]
    for key in ("default", "example"):
        problems: list[str] = []
        value: Any = field.get(key)
        if value is not None and value is not False:
            check(value, field, path, problems)
            assert problems == []
        if key == "default" and field["type"] == "duration":
            assert duration(value)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("dns_label", ["a", "a-1", "a" * 63], ["", "1a", "-a", "a-", "A", "a_b", "a.b", "a" * 64, "a\n"]),
        ("dns_domain", ["cluster.local", "a", "1.a"], ["", "a.", ".a", "-a", "A"]),
        (
            "ip",
            ["10.0.0.1", "::1", "::", "fd00::a", "::ffff:1.2.3.4"],
            ["", "a", "db.example.com", "10.0.0.1:80", "f:1"],
        ),
        ("path", ["/", "/a?b"], ["", "a", "/a b", " /a", "/a\n"]),
        ("grpc", ["Echo", "api.Echo", "api.v1.Echo/Echo"], ["", "/api.Echo", "api.Echo/", "api.Echo/a.b", "1a", "a b"]),
        ("header", ["x-user", "X_user", "a"], ["", "a b", "a:", ":path", "ü"]),
        ("server_name", ["a", "x.y", "*.x.y", "10.0.0.1"], ["", "*", "a.*", "X", "x.", "a_b"]),
        ("host_name", ["a", "api.example.com", "1.a"], ["", "*.x", "10.0.0.1", "X", "x.", "-x", "a" * 64]),
        ("plain_header", ["x-user", "A_b.c"], ["", ":path", "-a", "a b", "x*"]),
        ("header_value", ["a b", "100%%", "%PROTOCOL%", "%REQ(x-user)%", "a%REQ(X?Y):9%"], ["", "100%", "%X%", "a\n"]),
        ("log_value", ["%REQ(x)%", "100%%", "%START_TIME(%Y)%:", "%REQ(x):20%"], ["", "a\nb", "100%", "%x%"]),
        ("cookie_value", ["v2", "a=b"], ["", "a b", "a;b", 'a"']),
        ("stat", ["upstream_cx_length_ms", "ssl.handshake"], ["", "a-b", "a b"]),
        ("zone", ["eu-1a", "A.b_c", "1"], ["", "-a", "a-", "a" * 64]),
        ("variable", ["A", "_a1"], ["", "1A", "A-B", "A B"]),
    ],
)
def test_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    expression = PATTERNS[pattern][0]
    assert [text for text in good if not re.fullmatch(expression, text)] == []
    assert [text for text in bad if re.fullmatch(expression, text)] == []


MAX = 4_294_967_295
S, F, E = "mesh_services[]", "mesh_front_proxies[]", "mesh_services[].upstreams[]"
RATE = f"{S}.sidecar.rate_limit"

# Path, what may be given at its limits, and what may not.
LIMITS: list[tuple[str, list[Any], list[Any]]] = [
    (f"{S}.replicas", [0, 250], [-1, 251]),
    (f"{S}.panic_threshold", [0, 100], [-1, 101, 0.5]),
    (f"{S}.connect_timeout", ["1ms"], [0, "0.5ms"]),
    (f"{S}.connection.max_requests", [1, MAX], [0, MAX + 1]),
    (f"{S}.connection.tcp_keepalive", ["1s", 30], ["999ms"]),
    (f"{S}.connection.tcp_user_timeout", ["1ms", 2_000_000], [0, 2_000_001]),
    (f"{S}.circuit_breakers", [1, MAX], [0, MAX + 1]),
    (f"{S}.circuit_breakers.retry_budget", [0, 12.5, 100], [-1, 101]),
    (f"{S}.outlier_detection.success_rate.stdev_factor", [0.1, 100], [0, 100.1]),
    (f"{S}.outlier_detection.failure_percentage.threshold", [1, 100], [0, 101, 1.5]),
    (f"{S}.outlier_detection.errors[]", [400, 499], [399, 500]),
    (f"{S}.outlier_detection.interval", ["1ms"], [0]),
    (f"{S}.outlier_detection.max_ejection_percent", [0, 100], [-1, 101]),
    (f"{S}.slow_start", ["1ms", {"window": 1}], [0, {}]),
    (f"{S}.slow_start.aggression", [0.1, 100], [0, 101]),
    (f"{S}.zone_aware.min_replicas", [1], [0]),
    (f"{S}.health_check.interval", ["1ms"], [0]),
    (f"{S}.health_check.unhealthy_threshold", [1], [0]),
    (f"{S}.versions[].weight", [0, 1_000_000], [-1, 1_000_001]),
    (f"{S}.mirror.percent", [0, 0.1, 100], [-1, 101]),
    (f"{E}.retries", [0, 100], [-1, 101]),
    (f"{E}.retries.on[]", ["5xx", "cancelled", "unavailable"], ["retriable-headers"]),
    (f"{E}.retries.statuses[]", [400, 599], [399, 600]),
    (f"{E}.retries.backoff", ["1ms", {"base": 1, "max": 2}], [0]),
    (f"{E}.fault.delay", ["1ms"], [0, {}]),
    (f"{E}.fault.abort.status", [200, 599], [199, 600]),
    (f"{E}.fault.abort.grpc_status", [0, 16], [-1, 17]),
    (RATE, [1, MAX], [0, {}]),
    (f"{RATE}.per", ["50ms"], ["49ms"]),
    (f"{S}.sidecar.max_connections", [1], [0]),
    (f"{S}.sidecar.overload.max_heap", [1, "1Gi"], [0, "1.5Gi"]),
    (f"{S}.sidecar.http.max_request_headers_kb", [1, 8192], [0, 8193]),
    (f"{S}.sidecar.http.max_concurrent_streams", [1, 2147483647], [0, 2147483648]),
    (f"{S}.sidecar.http.max_connection_duration", ["1ms"], [0]),
    (f"{S}.sidecar.access_log.sample", [0, 0.5, 100], [-1, 101]),
    (f"{S}.sidecar.metrics.port", [1, 65535], [0, 65536]),
    (f"{F}.http.trusted_hops", [0, 255], [-1, 256]),
    ("mesh.tracing.sampling", [0, 0.001, 100], [-1, 101]),
    ("mesh.dns.refresh_rate", ["10ms"], [0, "9ms"]),
]


@pytest.mark.parametrize(("path", "good", "bad"), LIMITS)
def test_limits(path: str, good: list[Any], bad: list[Any]) -> None:
    def allowed(value: Any) -> bool:
        problems: list[str] = []
        check(value, EVERY[path], path, problems)
        return not problems

    assert ([value for value in good if not allowed(value)], [value for value in bad if allowed(value)]) == ([], [])


RETRIES = {"per_try_timeout": None, "per_try_idle_timeout": None, "backoff": None, "hedge": False}

# Path, what is given, and all that it means.
MEANINGS: list[tuple[str, Any, Any]] = [
    (f"{S}.sidecar", False, False),
    (
        f"{S}.circuit_breakers",
        5,
        {
            "max_connections": 1024,
            "max_pending_requests": 1024,
            "max_requests": 5,
            "max_retries": None,
            "retry_budget": None,
        },
    ),
    (f"{S}.circuit_breakers.retry_budget", {}, {"percent": 20, "min_concurrency": 3}),
    (
        f"{S}.outlier_detection",
        True,
        {
            "consecutive_local_origin_failure": 2,
            "consecutive_gateway_failure": 5,
            "consecutive_5xx": None,
            "success_rate": False,
            "failure_percentage": False,
            "errors": [],
            "interval": "1s",
            "base_ejection_time": "10s",
            "max_ejection_time": "300s",
            "max_ejection_percent": 50,
        },
    ),
    (f"{S}.outlier_detection", False, False),
    (
        f"{S}.outlier_detection.success_rate",
        True,
        {"stdev_factor": 1.9, "minimum_hosts": 5, "request_volume": 100},
    ),
    (
        f"{S}.outlier_detection.failure_percentage",
        True,
        {"threshold": 85, "minimum_hosts": 5, "request_volume": 50},
    ),
    (
        f"{S}.connection",
        {"tcp_keepalive": "1m"},
        {
            "idle_timeout": None,
            "max_duration": None,
            "max_requests": None,
            "tcp_keepalive": {"time": "60s", "interval": "10s", "probes": 3},
            "tcp_user_timeout": None,
        },
    ),
    (f"{S}.slow_start", "1m", {"window": "60s", "aggression": 1, "min_weight_percent": 10}),
    (f"{S}.zone_aware", True, {"min_replicas": 2}),
    (f"{S}.zone_aware", False, False),
    (f"{S}.tls", True, {"server_name": None, "ca_file": None, "client_certificate": None}),
    (f"{S}.versions[].cookie", "beta", {"name": "beta", "value": None}),
    (f"{S}.versions[]", {"service": "v1"}, {"service": "v1", "weight": 0, "headers": None, "cookie": None}),
    (f"{S}.mirror", "b", {"service": "b", "percent": 100}),
    (f"{E}.retries", 3, {"count": 3, "on": None, "statuses": None, "previous_hosts": True, **RETRIES}),
    (f"{E}.retries.backoff", "1s", {"base": "1s", "max": None}),
    (f"{E}.retries.backoff", {}, {"base": "0.025s", "max": None}),
    (f"{E}.request_headers", {"remove": ["x"]}, {"set": {}, "add": {}, "remove": ["x"]}),
    (
        f"{E}.fault",
        {"delay": "1s", "abort": 503},
        {
            "delay": {"duration": "1s", "percent": 100},
            "abort": {"status": 503, "grpc_status": None, "percent": 100},
            "headers": [],
        },
    ),
    (f"{E}.rate_limit", 9, {"requests": 9, "per": "1s", "burst": None}),
    (f"{S}.sidecar.metrics", True, {"port": 9902}),
    (f"{S}.sidecar.metrics", False, False),
    (f"{S}.sidecar.access_log", "none", {"format": "none", "fields": None, "extra_fields": {}, "sample": 100}),
    (f"{S}.sidecar.overload", {}, {"max_heap": 2**30, "max_connections": 50000}),
    (
        f"{F}.http",
        {},
        {
            "max_request_headers_kb": 60,
            "max_headers": 100,
            "header_underscores": None,
            "escaped_slashes": None,
            "request_headers_timeout": "10s",
            "request_timeout": None,
            "stream_idle_timeout": "300s",
            "idle_timeout": "3600s",
            "max_connection_duration": None,
            "max_concurrent_streams": 100,
            "trusted_hops": 0,
        },
    ),
    ("mesh.stats", "all", {"keep": "all", "also": []}),
    ("mesh.tracing", False, False),
    ("mesh.tracing", {"host": "otel"}, {"host": "otel", "port": 4317, "protocol": "grpc", "sampling": 100}),
]


@pytest.mark.parametrize(("path", "given", "meaning"), MEANINGS)
def test_meanings(path: str, given: Any, meaning: Any) -> None:
    problems: list[str] = []
    assert (check(given, EVERY[path], path, problems), problems) == (meaning, [])


def test_the_parts_of_a_policy_are_keys_of_it() -> None:
    assert {*schema_edge.SERVICE_POLICY, *schema_edge.TCP_POLICY} <= set(schema_edge.POLICY)
    assert not set(schema_edge.POLICY) & set(schema_edge.EDGE)


def test_every_envoy_is_told_the_same() -> None:
    for path in (f"{S}.sidecar", F):
        assert {key: EVERY[path]["fields"][key] for key in schema_proxy.ENVOY} == schema_proxy.ENVOY
