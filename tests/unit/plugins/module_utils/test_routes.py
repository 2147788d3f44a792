"""Routes: matches, actions and rewrites as Envoy writes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.routes import (
    route,
    route_configuration,
    route_configurations,
)

POLICY: dict[str, Any] = {
    "timeout": "15s",
    "grpc_deadline": False,
    "retries": None,
    "prefix_rewrite": None,
    "host_rewrite": None,
}
ITEM: dict[str, Any] = {
    "match": {"prefix": "/", "headers": [], "grpc": False},
    "cluster": "b",
    "policy": POLICY,
    "hash_on": None,
    "envoy_patch": {},
}
PLAIN = {"match": {"prefix": "/"}, "route": {"cluster": "b", "timeout": "15s"}}


def built(**changes: Any) -> dict[str, Any]:
    item = {**copy.deepcopy(ITEM), **changes}
    before = copy.deepcopy(item)
    result = route(item)
    assert item == before
    return result


def header(**test: Any) -> dict[str, Any]:
    return {"name": "x", **dict.fromkeys(("exact", "prefix", "regex", "present")), **test}


def test_a_plain_route() -> None:
    assert built() == PLAIN


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"path": "/a"}, {"path": "/a"}),
        ({"regex": "/a+"}, {"safe_regex": {"regex": "/a+"}}),
        ({"prefix": "/a.B/", "grpc": True}, {"prefix": "/a.B/", "grpc": {}}),
        (
            {"prefix": "/", "headers": [header(exact="on")]},
            {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": "on"}}]},
        ),
        (
            {"prefix": "/", "headers": [header(exact="")]},
            {"prefix": "/", "headers": [{"name": "x", "string_match": {"exact": ""}}]},
        ),
        (
            {"prefix": "/", "headers": [header(prefix="a"), header(regex="[0-9]")]},
            {
                "prefix": "/",
                "headers": [
                    {"name": "x", "string_match": {"prefix": "a"}},
                    {"name": "x", "string_match": {"safe_regex": {"regex": "[0-9]"}}},
                ],
            },
        ),
        (
            {"prefix": "/", "headers": [header(present=True), header(present=False)]},
            {"prefix": "/", "headers": [{"name": "x", "present_match": True}, {"name": "x", "present_match": False}]},
        ),
    ],
)
def test_matches(match: dict[str, Any], expected: dict[str, Any]) -> None:
    assert built(match={"headers": [], "grpc": False, **match})["match"] == expected


OTHER_HOST = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"timeout": "0s"}, {"timeout": "0s"}),
        (
            {"timeout": "0s", "grpc_deadline": True},
            {"timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}},
        ),
        ({"retries": {"count": 0, "on": ["reset"], "per_try_timeout": None}}, {}),
        (
            {"retries": {"count": 2, "on": ["reset", "5xx"], "per_try_timeout": "1s"}},
            {
                "retry_policy": {
                    "retry_on": "reset,5xx",
                    "num_retries": 2,
                    "per_try_timeout": "1s",
                    "retry_host_predicate": [OTHER_HOST],
                    "host_selection_retry_max_attempts": 5,
                }
            },
        ),
        (
            {"retries": {"count": 1, "on": ["reset"], "per_try_timeout": None}},
            {
                "retry_policy": {
                    "retry_on": "reset",
                    "num_retries": 1,
                    "retry_host_predicate": [OTHER_HOST],
                    "host_selection_retry_max_attempts": 5,
                }
            },
        ),
        ({"prefix_rewrite": "/x"}, {"prefix_rewrite": "/x"}),
        ({"host_rewrite": "h"}, {"host_rewrite_literal": "h"}),
    ],
)
def test_actions(policy: dict[str, Any], expected: dict[str, Any]) -> None:
    assert built(policy={**POLICY, **policy})["route"] == {"cluster": "b", "timeout": "15s", **expected}


def test_a_regex_is_rewritten_as_a_whole() -> None:
    result = built(
        match={"regex": "/a/[0-9]+", "headers": [], "grpc": False}, policy={**POLICY, "prefix_rewrite": "/b"}
    )
    assert result["route"]["regex_rewrite"] == {"pattern": {"regex": "/a/[0-9]+"}, "substitution": "/b"}
    assert "prefix_rewrite" not in result["route"]


@pytest.mark.parametrize(
    ("hash_on", "expected"),
    [
        ({"header": "x", "cookie": None, "source_ip": None}, {"header": {"header_name": "x"}}),
        ({"header": None, "cookie": "c", "source_ip": None}, {"cookie": {"name": "c", "ttl": "0s"}}),
        ({"header": None, "cookie": None, "source_ip": True}, {"connection_properties": {"source_ip": True}}),
    ],
)
def test_hashing(hash_on: dict[str, Any], expected: dict[str, Any]) -> None:
    assert built(hash_on=hash_on)["route"]["hash_policy"] == [expected]


def test_the_patch_comes_last() -> None:
    patch = {"route": {"timeout": None, "cluster_header": "x"}, "name": "patched"}
    assert built(envoy_patch=patch) == {
        "name": "patched",
        "match": {"prefix": "/"},
        "route": {"cluster": "b", "cluster_header": "x"},
    }


LISTENER: dict[str, Any] = {
    "name": "ingress_80",
    "direction": "ingress",
    "protocol": "http",
    "https_redirect": False,
    "virtual_hosts": [{"name": "v", "domains": ["a", "b"], "routes": [ITEM]}],
}


def test_a_route_configuration_has_its_listeners_name() -> None:
    assert route_configuration(LISTENER) == {
        "name": "ingress_80",
        "virtual_hosts": [{"name": "v", "domains": ["a", "b"], "routes": [PLAIN]}],
    }


def test_fronts_find_a_host_whatever_the_port() -> None:
    found = route_configuration({**LISTENER, "direction": "front"})
    assert found["ignore_port_in_host_matching"] is True


def test_a_redirect_takes_the_place_of_the_routes() -> None:
    found = route_configuration({**LISTENER, "https_redirect": True})
    assert found["virtual_hosts"] == [
        {
            "name": "redirect",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}],
        }
    ]


def test_tcp_has_no_routes() -> None:
    listeners = [LISTENER, {**LISTENER, "name": "t", "protocol": "tcp"}, {**LISTENER, "name": "g", "protocol": "grpc"}]
    assert [item["name"] for item in route_configurations({"listeners": listeners})] == ["ingress_80", "g"]
