"""Routes with every setting decided: which service gets a request, and what it is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.requests import (
    UNLIMITED,
    answer,
    connects,
    health_path,
    match,
    retries,
)

SAFE = ["connect-failure", "refused-stream", "reset-before-request"]
IDEMPOTENT = [*SAFE, "reset", "gateway-error"]
RETRIES = {
    "count": 2,
    "on": SAFE,
    "statuses": [],
    "per_try_timeout": None,
    "per_try_idle_timeout": None,
    "backoff": None,
    "previous_hosts": True,
    "hedge": False,
}
NONE: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("idle_timeout", "grpc_timeout_max", "retries", "idempotent", "prefix_rewrite", "host_rewrite"),
            *("request_headers", "response_headers", "mirror", "fault", "rate_limit"),
        )
    ),
    "grpc": False,
    "grpc_deadline": False,
}
EVERYTHING = {"prefix": "/", "headers": [], "grpc": False}


def routes(inventory: str, proxy: str = "a", listener: int = 1) -> list[dict[str, Any]]:
    """The routes of one listener of a proxy."""
    data = yaml.safe_load(inventory)
    model = build_model(data.get("services"), data.get("fronts"), data.get("settings"))
    found = next(item for item in model["proxies"] if item["name"] == proxy)["listeners"][listener]
    return [route for host in found["virtual_hosts"] for route in host["routes"]]


def route(upstream: str, callee: str = "", more: str = "") -> dict[str, Any]:
    """The only route from service a to service b."""
    (found,) = routes(f"""
services:
  - {{name: a, port: 8081, upstreams: [{{service: b, port: 9001, {upstream}}}]}}
  - {{name: b, port: 8082, {callee}}}
  - {{name: c, port: 8083}}
  {more}
""")
    return found


def claim(value: str | None, name: str = "x") -> dict[str, Any]:
    return {"name": name, "exact": value, "prefix": None, "regex": None, "present": None}


def cookie(pattern: str) -> dict[str, Any]:
    return {"name": "cookie", "exact": None, "prefix": None, "regex": pattern, "present": None}


def hash_on(**given: Any) -> dict[str, Any]:
    return {**dict.fromkeys(("header", "cookie", "source_ip")), **given}


def test_a_route_by_default() -> None:
    assert route("") == {
        "match": EVERYTHING,
        "clusters": [{"name": "b", "weight": 1, "host_rewrite": None}],
        "sticky": False,
        "cookie": None,
        "hash_on": [],
        "policy": {**NONE, "timeout": "15s", "retries": RETRIES},
        "websocket": False,
        "envoy_patch": {},
    }


@pytest.mark.parametrize(
    ("upstream", "callee", "expected"),
    [
        ("", "protocol: grpc", {"timeout": "0s", "idle_timeout": "0s", "grpc": True, "grpc_deadline": True}),
        ("timeout: 3s", "protocol: grpc", {"timeout": "3s", "grpc": True, "grpc_deadline": False}),
        ("grpc_timeout_max: 5s", "protocol: grpc", {"grpc_timeout_max": "5s"}),
        ("", "websocket: true", {"timeout": "15s", "idle_timeout": "0s"}),
        ("idle_timeout: 1m", "websocket: true", {"idle_timeout": "60s"}),
        ("timeout: 0, idle_timeout: 0", "", {"timeout": "0s", "idle_timeout": "0s", "grpc_deadline": False}),
        ("timeout: 500ms", "", {"timeout": "0.5s"}),
        ("retries: 0", "", {"retries": None}),
        ("retries: 5", "", {"retries": {**RETRIES, "count": 5}}),
        ("prefix_rewrite: /x, host_rewrite: y", "", {"prefix_rewrite": "/x", "host_rewrite": "y"}),
        ("mirror: c", "", {"mirror": {"service": "c", "percent": 100}}),
        ("", "mirror: {service: c, percent: 5}", {"mirror": {"service": "c", "percent": 5}}),
        ("mirror: {service: c, percent: 9}", "mirror: c", {"mirror": {"service": "c", "percent": 9}}),
        ("rate_limit: 3", "", {"rate_limit": {"requests": 3, "per": "1s", "burst": None}}),
        ("request_headers: {remove: [x]}", "", {"request_headers": {"set": {}, "add": {}, "remove": ["x"]}}),
        ("response_headers: {add: {x: y}}", "", {"response_headers": {"set": {}, "add": {"x": "y"}, "remove": []}}),
    ],
)
def test_what_requests_are_told(upstream: str, callee: str, expected: dict[str, Any]) -> None:
    found = route(upstream, callee)["policy"]
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("given", "idempotent", "expected"),
    [
        (None, False, {}),
        (None, True, {"count": 4, "on": IDEMPOTENT, "per_try_timeout": "1s"}),
        ({"count": 0}, True, None),
        ({"count": 1, "per_try_timeout": "3s"}, True, {"count": 1, "on": IDEMPOTENT, "per_try_timeout": "3s"}),
        ({"on": ["5xx"]}, False, {"on": ["5xx"]}),
        (
            {"on": ["5xx"], "statuses": [409], "per_try_timeout": "2s"},
            True,
            {"count": 4, "on": ["5xx", "retriable-status-codes"], "statuses": [409], "per_try_timeout": "2s"},
        ),
        ({"statuses": [409]}, False, {"on": [*SAFE, "retriable-status-codes"], "statuses": [409]}),
        (
            {"on": ["retriable-status-codes"], "statuses": [409]},
            False,
            {"on": ["retriable-status-codes"], "statuses": [409]},
        ),
        ({"previous_hosts": False}, False, {"previous_hosts": False}),
        ({"per_try_idle_timeout": "1s"}, False, {"per_try_idle_timeout": "1s"}),
        ({"backoff": {"base": "1s", "max": None}}, False, {"backoff": {"base": "1s", "max": None}}),
        ({"hedge": True, "count": 1}, True, {"hedge": True, "count": 1, "on": IDEMPOTENT, "per_try_timeout": "1s"}),
        # A request that must not be repeated is not sent twice either.
        ({"hedge": True}, False, {"hedge": False}),
    ],
)
def test_retries(given: dict[str, Any] | None, idempotent: bool, expected: dict[str, Any] | None) -> None:
    assert retries(given, idempotent, grpc=False) == (expected if expected is None else {**RETRIES, **expected})


def test_what_a_callee_says_about_hashing_holds_for_its_callers() -> None:
    assert route("", "lb_policy: maglev, hash_on: {header: h}")["hash_on"] == [hash_on(header="h")]
    found = route("hash_on: {cookie: c}", "lb_policy: maglev, hash_on: {header: h}")
    assert found["hash_on"] == [hash_on(cookie="c")]


def test_a_host_outside_gets_its_name_as_host() -> None:
    assert route("", "host: api.example.com")["clusters"] == [
        {"name": "b", "weight": 1, "host_rewrite": "api.example.com"}
    ]


# Fronts: the route, what the front says of the service, the service

FRONT = """
services: [{{name: a, port: 1, mirror: c}}, {{name: b, port: 1}}, {{name: c, port: 1}}]
fronts:
  - name: f
    listeners: [{{port: 1}}]
    routes: [{{prefix: /, service: a, {0}}}]
    upstreams: [{{service: a, {1}}}]
"""


@pytest.mark.parametrize(
    ("own", "services", "expected"),
    [
        ("", "", {"timeout": "15s", "retries": RETRIES, "mirror": {"service": "c", "percent": 100}}),
        ("", "timeout: 4s, idle_timeout: 9s", {"timeout": "4s", "idle_timeout": "9s"}),
        ("timeout: 0, idle_timeout: 0", "timeout: 4s, idle_timeout: 9s", {"timeout": "0s", "idle_timeout": "0s"}),
        ("", "retries: 7", {"retries": {**RETRIES, "count": 7}}),
        ("retries: {count: 1}", "retries: 7", {"retries": {**RETRIES, "count": 1}}),
        ("", "mirror: b", {"mirror": {"service": "b", "percent": 100}}),
        ("mirror: {service: b, percent: 1}", "mirror: b", {"mirror": {"service": "b", "percent": 1}}),
        (
            "",
            "idempotent: true, retries: {hedge: true}",
            {"retries": {**RETRIES, "count": 4, "on": IDEMPOTENT, "per_try_timeout": "1s", "hedge": True}},
        ),
        ("idempotent: false", "idempotent: true, retries: {hedge: true}", {"retries": RETRIES}),
    ],
)
def test_what_a_route_leaves_open_the_front_decides(own: str, services: str, expected: dict[str, Any]) -> None:
    (found,) = routes(FRONT.format(own, services), "f", 0)
    assert {key: found["policy"][key] for key in expected} == expected


# Versions

VERSIONS = """
services:
  - {name: a, port: 8081, upstreams: [{service: shop, port: 9001, timeout: 4s, envoy_patch: {route: {r: 1}}}]}
  - name: shop
    port: 80
    sticky: {cookie: version}
    versions:
      - {service: v1, weight: 9}
      - {service: v2, weight: 1, headers: [{name: x, exact: v2}], cookie: {name: beta.1, value: y+}}
      - {service: v3, cookie: v3}
  - {name: v1, port: 8081, lb_policy: maglev, hash_on: {header: user}}
  - {name: v2, port: 8081}
  - {name: v3, port: 443, host: v3.example.com}
"""


def test_a_version_claims_requests_before_the_weights_share_the_rest() -> None:
    found = routes(VERSIONS)
    assert [route["match"] for route in found] == [
        {**EVERYTHING, "headers": [claim("v2")]},
        {**EVERYTHING, "headers": [cookie(r"(.*;\s*)?beta\.1=y\+(\s*;.*)?")]},
        {**EVERYTHING, "headers": [cookie(r"(.*;\s*)?v3=[^;]*(\s*;.*)?")]},
        # Whom the weights gave a version, the cookie keeps there.
        {**EVERYTHING, "headers": [cookie(r"(.*;\s*)?version=v1(\s*;.*)?")]},
        {**EVERYTHING, "headers": [cookie(r"(.*;\s*)?version=v2(\s*;.*)?")]},
        EVERYTHING,
    ]
    assert [[(item["name"], item["weight"]) for item in route["clusters"]] for route in found] == [
        [("v2", 1)],
        [("v2", 1)],
        [("v3", 1)],
        [("v1", 1)],
        [("v2", 1)],
        [("v1", 9), ("v2", 1)],
    ]
    assert found[2]["clusters"][0]["host_rewrite"] == "v3.example.com"
    assert [(route["sticky"], route["cookie"]) for route in found] == [(False, None)] * 5 + [(False, "version")]
    for route in found:
        assert (route["policy"]["timeout"], route["envoy_patch"]) == ("4s", {"r": 1})
        # The cookie chooses the version without a hash; this one is for its replicas.
        assert route["hash_on"] == [hash_on(header="user")]


def test_a_version_that_claims_a_request_gets_no_copy_of_it() -> None:
    found = routes(VERSIONS.replace("timeout: 4s,", "timeout: 4s, mirror: v3,"))
    copies = [route["policy"]["mirror"] and route["policy"]["mirror"]["service"] for route in found]
    assert copies == ["v3", "v3", None, "v3", "v3", "v3"]


def test_a_claim_goes_with_what_the_route_asks_for() -> None:
    inventory = VERSIONS.replace(
        "port: 8081, upstreams: [{service: shop, port: 9001,",
        "port: 8081, egress: shared, upstreams: [{service: shop, match: {prefix: /s, headers: [{name: y, exact: z}]},",
    )
    found = routes(inventory)
    assert found[0]["match"] == {"prefix": "/s", "headers": [claim("z", "y"), claim("v2")], "grpc": False}
    assert found[-1]["match"] == {"prefix": "/s", "headers": [claim("z", "y")], "grpc": False}


@pytest.mark.parametrize(("name", "upgrades"), [("v1", True), ("v9", False)])
def test_a_websocket_of_one_version_is_one_of_all(name: str, upgrades: bool) -> None:
    found = routes(VERSIONS.replace(f"- {{name: {name}, ", f"- {{name: {name}, websocket: true, "))
    assert [route["websocket"] for route in found] == [upgrades] * 6
    assert {route["policy"]["idle_timeout"] for route in found} == {"0s" if upgrades else None}


# Ingress


def ingress(service: str) -> list[dict[str, Any]]:
    return routes(f"services: [{{name: a, port: 8081, {service}}}]", listener=0)


def test_ingress_by_default() -> None:
    assert ingress("") == [
        {
            "match": EVERYTHING,
            "clusters": [{"name": "local_app", "weight": 1, "host_rewrite": None}],
            "sticky": False,
            "cookie": None,
            "hash_on": [],
            "policy": {**NONE, "timeout": "0s"},
            "websocket": False,
            "envoy_patch": {},
        }
    ]


@pytest.mark.parametrize(
    ("service", "websocket", "idle_timeout"),
    [("protocol: grpc", False, "0s"), ("websocket: true", True, "0s"), ("protocol: http2", False, None)],
)
def test_streams_may_be_silent(service: str, websocket: bool, idle_timeout: str | None) -> None:
    (found,) = ingress(service)
    assert (found["websocket"], found["policy"]["idle_timeout"]) == (websocket, idle_timeout)


def test_an_ingress_route_tells_requests_what_it_may() -> None:
    (found,) = ingress(
        "sidecar: {routes: [{grpc: a.B, request_headers: {set: {x: y}}, rate_limit: 1, fault: {abort: 503}}]}"
    )
    assert found["match"] == {"prefix": "/a.B/", "headers": [], "grpc": True}
    assert found["policy"]["request_headers"]["set"] == {"x": "y"}
    assert found["policy"]["rate_limit"]["requests"] == 1
    assert found["policy"]["fault"]["abort"]["status"] == 503


@pytest.mark.parametrize(
    ("service", "exempt"),
    [
        ("sidecar: {rate_limit: 1}", None),
        ("health_check: http", None),
        ("sidecar: {rate_limit: 1}, health_check: {path: '/up?x'}", "/up"),
        ("sidecar: {rate_limit: 1}, health_check: {}, protocol: grpc", "/grpc.health.v1.Health/Check"),
        ("sidecar: {rate_limit: 1}, health_check: tcp", None),
    ],
)
def test_a_rate_limit_lets_health_checks_pass(service: str, exempt: str | None) -> None:
    found = ingress(service)
    limits = [route["match"]["path"] for route in found if route["policy"]["rate_limit"] == UNLIMITED]
    assert limits == ([exempt] if exempt else [])
    assert found[-1]["match"] == EVERYTHING
    assert found[-1]["policy"]["rate_limit"] is None


@pytest.mark.parametrize(
    ("check", "protocol", "path"),
    [
        (None, "http", None),
        ({"type": None, "path": "/a?b"}, "http", "/a"),
        ({"type": None, "path": "/a"}, "http2", "/a"),
        ({"type": None, "path": "/a"}, "grpc", "/grpc.health.v1.Health/Check"),
        ({"type": "http", "path": "/a"}, "grpc", "/a"),
        ({"type": "tcp", "path": "/a"}, "http", None),
        ({"type": None, "path": "/a"}, "tls", None),
    ],
)
def test_path_of_a_health_check(check: dict[str, Any] | None, protocol: str, path: str | None) -> None:
    assert health_path(check, protocol) == path


# Parts


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


def test_an_answer_needs_no_service() -> None:
    assert answer(403, "no") == {"match": EVERYTHING, "answer": {"status": 403, "body": "no"}}


@pytest.mark.parametrize(
    ("settings", "attempts", "idle"),
    [
        ([None], 3, None),
        ([{"retries": None, "idle_timeout": "9s"}], 3, "9s"),
        ([{"retries": {"count": None}, "idle_timeout": None}], 3, None),
        ([{"retries": {"count": 0}, "idle_timeout": "0s"}], 1, "0s"),
        ([None, {"retries": {"count": 4}, "idle_timeout": None}], 5, None),
    ],
)
def test_connections(settings: list[dict[str, Any] | None], attempts: int, idle: str | None) -> None:
    assert connects(settings) == {"connect_attempts": attempts, "idle_timeout": idle}
