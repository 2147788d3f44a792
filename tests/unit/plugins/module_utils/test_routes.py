"""Routes: matches, actions and rewrites as Envoy writes them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.requests import UNLIMITED
from ansible_collections.sidecar.mesh.plugins.module_utils.routes import (
    fraction,
    local_rate_limit,
    route,
    route_configuration,
    route_configurations,
)

POLICY: dict[str, Any] = {
    "timeout": "15s",
    "idle_timeout": None,
    "grpc": False,
    "grpc_deadline": False,
    "grpc_timeout_max": None,
    "retries": None,
    "prefix_rewrite": None,
    "host_rewrite": None,
    "request_headers": None,
    "response_headers": None,
    "mirror": None,
    "fault": None,
    "rate_limit": None,
}
ITEM: dict[str, Any] = {
    "match": {"prefix": "/", "headers": [], "grpc": False},
    "clusters": [{"name": "b", "weight": 1, "host_rewrite": None}],
    "sticky": False,
    "cookie": None,
    "policy": POLICY,
    "hash_on": [],
    "websocket": False,
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


RETRIES: dict[str, Any] = {
    "count": 2,
    "on": ["reset", "5xx"],
    "statuses": [],
    "per_try_timeout": None,
    "per_try_idle_timeout": None,
    "backoff": None,
    "previous_hosts": False,
    "hedge": False,
}
RETRIED: dict[str, Any] = {"retry_on": "reset,5xx", "num_retries": 2}
OTHER_HOST = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


# Also for callers that ask for no deadline.
LONGEST = {"max_stream_duration": "5s", "grpc_timeout_header_max": "5s"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"timeout": "0s"}, {"timeout": "0s"}),
        (
            {"timeout": "0s", "grpc_deadline": True},
            {"timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}},
        ),
        ({"idle_timeout": "0s"}, {"idle_timeout": "0s"}),
        ({"grpc_timeout_max": "5s"}, {"max_stream_duration": LONGEST}),
        (
            {"grpc_timeout_max": "5s", "grpc_deadline": True},
            {"max_stream_duration": LONGEST},
        ),
        ({"retries": RETRIES}, {"retry_policy": RETRIED}),
        (
            {"retries": {**RETRIES, "previous_hosts": True}},
            {
                "retry_policy": {
                    **RETRIED,
                    "retry_host_predicate": [OTHER_HOST],
                    "host_selection_retry_max_attempts": 5,
                }
            },
        ),
        (
            {"retries": {**RETRIES, "per_try_timeout": "1s", "per_try_idle_timeout": "2s", "statuses": [409]}},
            {
                "retry_policy": {
                    **RETRIED,
                    "per_try_timeout": "1s",
                    "per_try_idle_timeout": "2s",
                    "retriable_status_codes": [409],
                }
            },
        ),
        (
            {"retries": {**RETRIES, "backoff": {"base": "1s", "max": None}}},
            {"retry_policy": {**RETRIED, "retry_back_off": {"base_interval": "1s"}}},
        ),
        (
            {"retries": {**RETRIES, "backoff": {"base": "1s", "max": "3s"}}},
            {"retry_policy": {**RETRIED, "retry_back_off": {"base_interval": "1s", "max_interval": "3s"}}},
        ),
        (
            {"retries": {**RETRIES, "hedge": True}},
            {"retry_policy": RETRIED, "hedge_policy": {"hedge_on_per_try_timeout": True}},
        ),
        (
            {"mirror": {"service": "c", "percent": 0.5}},
            {
                "request_mirror_policies": [
                    {
                        "cluster": "c",
                        "runtime_fraction": {"default_value": {"numerator": 5000, "denominator": "MILLION"}},
                    }
                ]
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
        ({"header": None, "cookie": "c", "source_ip": None}, {"cookie": {"name": "c", "ttl": "0s", "path": "/"}}),
        ({"header": None, "cookie": None, "source_ip": True}, {"connection_properties": {"source_ip": True}}),
    ],
)
def test_hashing(hash_on: dict[str, Any], expected: dict[str, Any]) -> None:
    assert built(hash_on=[hash_on])["route"]["hash_policy"] == [expected]


def test_websockets() -> None:
    assert built(websocket=True)["route"]["upgrade_configs"] == [{"upgrade_type": "websocket"}]


# Versions

OWN_HOST = {"host_rewrite_literal": "v2.example.com"}
SHARES = [
    {"name": "v1", "weight": 9, "host_rewrite": None},
    {"name": "v2", "weight": 1, "host_rewrite": "v2.example.com"},
]


@pytest.mark.parametrize(
    ("sticky", "host", "expected"),
    [
        (False, None, {"clusters": [{"name": "v1", "weight": 9}, {"name": "v2", "weight": 1, **OWN_HOST}]}),
        (
            True,
            None,
            {
                "clusters": [{"name": "v1", "weight": 9}, {"name": "v2", "weight": 1, **OWN_HOST}],
                "use_hash_policy": True,
            },
        ),
        (False, "h", {"clusters": [{"name": "v1", "weight": 9}, {"name": "v2", "weight": 1}]}),
    ],
)
def test_versions_share_requests(sticky: bool, host: str | None, expected: dict[str, Any]) -> None:
    action = built(clusters=SHARES, sticky=sticky, policy={**POLICY, "host_rewrite": host})["route"]
    assert action == {
        "weighted_clusters": expected,
        "timeout": "15s",
        **({"host_rewrite_literal": host} if host else {}),
    }


def test_a_cookie_names_the_version_that_answered() -> None:
    shares = built(clusters=SHARES, cookie="seen")["route"]["weighted_clusters"]["clusters"]
    assert [share["response_headers_to_add"] for share in shares] == [
        [
            {
                "header": {"key": "set-cookie", "value": f"seen={name}; Path=/; HttpOnly"},
                "append_action": "APPEND_IF_EXISTS_OR_ADD",
            }
        ]
        for name in ("v1", "v2")
    ]


@pytest.mark.parametrize(("asked", "host"), [(None, "v2.example.com"), ("h", "h")])
def test_a_service_elsewhere_gets_its_name_as_host(asked: str | None, host: str) -> None:
    action = built(clusters=SHARES[1:], sticky=True, policy={**POLICY, "host_rewrite": asked})["route"]
    assert (action["cluster"], action["host_rewrite_literal"]) == ("v2", host)


# What passes through filters


def test_headers() -> None:
    headers = {"set": {"a": "1"}, "add": {"b": "%PROTOCOL%"}, "remove": ["c"]}
    result = built(policy={**POLICY, "request_headers": headers, "response_headers": {**headers, "remove": []}})
    values = [
        {"header": {"key": "a", "value": "1"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        {"header": {"key": "b", "value": "%PROTOCOL%"}, "append_action": "APPEND_IF_EXISTS_OR_ADD"},
    ]
    rest = {key: value for key, value in result.items() if key not in PLAIN}
    assert rest == {
        "request_headers_to_add": values,
        "request_headers_to_remove": ["c"],
        "response_headers_to_add": values,
    }


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (
            {"delay": {"duration": "2s", "percent": 10}},
            {"delay": {"fixed_delay": "2s", "percentage": {"numerator": 10}}},
        ),
        (
            {"abort": {"status": 503, "grpc_status": None, "percent": 100}},
            {"abort": {"http_status": 503, "percentage": {"numerator": 100}}},
        ),
        (
            {"abort": {"status": None, "grpc_status": 0, "percent": 0}, "headers": [header(exact="y")]},
            {
                "abort": {"grpc_status": 0, "percentage": {"numerator": 0}},
                "headers": [{"name": "x", "string_match": {"exact": "y"}}],
            },
        ),
    ],
)
def test_faults(fault: dict[str, Any], expected: dict[str, Any]) -> None:
    found = built(policy={**POLICY, "fault": {"delay": None, "abort": None, "headers": [], **fault}})
    assert found["typed_per_filter_config"] == {
        "envoy.filters.http.fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            **expected,
        }
    }


ALWAYS = {"default_value": {"numerator": 100}}
LIMITER = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


@pytest.mark.parametrize(("burst", "tokens"), [(None, 10), (30, 30)])
def test_a_rate_limit(burst: int | None, tokens: int) -> None:
    limit = {"requests": 10, "per": "60s", "burst": burst}
    expected = {
        "@type": LIMITER,
        "stat_prefix": "http_local_rate_limiter",
        "token_bucket": {"max_tokens": tokens, "tokens_per_fill": 10, "fill_interval": "60s"},
        "filter_enabled": ALWAYS,
        "filter_enforced": ALWAYS,
        "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
        "rate_limited_as_resource_exhausted": True,
    }
    assert local_rate_limit(limit) == expected
    found = built(policy={**POLICY, "rate_limit": limit})
    assert found["typed_per_filter_config"] == {"envoy.filters.http.local_ratelimit": expected}


def test_no_rate_limit() -> None:
    assert local_rate_limit(None) == {"@type": LIMITER, "stat_prefix": "http_local_rate_limiter"}
    found = built(policy={**POLICY, "rate_limit": UNLIMITED})["typed_per_filter_config"]
    assert found["envoy.filters.http.local_ratelimit"] == {
        "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
        "disabled": True,
    }


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (0, {"numerator": 0}),
        (100, {"numerator": 100}),
        (7.0, {"numerator": 7}),
        (12.5, {"numerator": 125000, "denominator": "MILLION"}),
        (0.0001, {"numerator": 1, "denominator": "MILLION"}),
    ],
)
def test_shares_are_exact(percent: float, expected: dict[str, Any]) -> None:
    assert fraction(percent) == expected


def test_an_answer() -> None:
    asked = {"match": ITEM["match"], "answer": {"status": 403, "body": "no\n"}}
    assert route(asked) == {
        "match": {"prefix": "/"},
        "direct_response": {"status": 403, "body": {"inline_string": "no\n"}},
    }


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
    "virtual_hosts": [{"name": "v", "domains": ["a", "b"], "routes": [ITEM], "patch": {}}],
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


def test_the_patch_of_a_virtual_host_comes_last() -> None:
    host = {**LISTENER["virtual_hosts"][0], "patch": {"domains": ["c"], "require_tls": "ALL"}}
    (found,) = route_configuration({**LISTENER, "virtual_hosts": [host]})["virtual_hosts"]
    assert found == {"name": "v", "domains": ["c"], "routes": [PLAIN], "require_tls": "ALL"}


def test_only_requests_have_routes_that_change() -> None:
    changes = {"t": {"protocol": "tcp"}, "s": {"protocol": "tls"}, "m": {"direction": "metrics"}}
    others = [{**LISTENER, "name": key, **change} for key, change in changes.items()]
    assert [item["name"] for item in route_configurations({"listeners": [LISTENER, *others]})] == ["ingress_80"]
