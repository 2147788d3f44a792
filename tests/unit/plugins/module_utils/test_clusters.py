"""Clusters: every edge of the model as Envoy writes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import (
    cluster,
    clusters,
    endpoints,
    load_assignment,
    siblings,
)

CARES = "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
EDGE: dict[str, Any] = {
    "name": "b",
    "protocol": "http",
    "discovery": "dns",
    "lb_policy": "round_robin",
    "hash_on": None,
    "connect_timeout": "1s",
    "health_check": None,
    "connection": None,
    "circuit_breakers": None,
    "outlier_detection": None,
    "panic_threshold": None,
    "slow_start": None,
    "zone_aware": None,
    "tls": None,
    "token": None,
    "outside": False,
    "hostname": "b.default.svc.cluster.local",
    "port": 8786,
    "endpoints": [{"address": "10.0.0.1", "port": 80, "zone": None}, {"address": "10.0.0.2", "port": 81, "zone": None}],
    "dns": {"refresh_rate": "5s", "jitter": "1s", "query_timeout": "2s", "query_tries": 3, "resolvers": []},
    "envoy_patch": {},
}
HEALTH = {
    "type": "http",
    "path": "/alive",
    "grpc_service": "",
    "interval": "10s",
    "unhealthy_interval": "2s",
    "timeout": "1s",
    "healthy_threshold": 3,
    "unhealthy_threshold": 4,
}


def built(**changes: Any) -> dict[str, Any]:
    edge = {**copy.deepcopy(EDGE), **changes}
    before = copy.deepcopy(edge)
    result = cluster(edge, {"paths": {"config": "/etc/envoy"}, "delivery": "files"})
    assert edge == before
    return result


def test_dns() -> None:
    assert built() == {
        "name": "b",
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 32768,
        "lb_policy": "ROUND_ROBIN",
        "cluster_type": {
            "name": "envoy.clusters.dns",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
                "dns_refresh_rate": "5s",
                "dns_failure_refresh_rate": {"base_interval": "1s", "max_interval": "5s"},
                "dns_jitter": "1s",
                "dns_lookup_family": "V4_ONLY",
                "typed_dns_resolver_config": {
                    "name": "envoy.network.dns_resolver.cares",
                    "typed_config": {
                        "@type": f"type.googleapis.com/{CARES}",
                        "query_timeout_seconds": 2,
                        "query_tries": 3,
                        "dns_resolver_options": {"no_default_search_domain": True},
                    },
                },
            },
        },
        "load_assignment": {
            "cluster_name": "b",
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {
                                    "socket_address": {"address": "b.default.svc.cluster.local.", "port_value": 8786}
                                },
                                "hostname": "b.default.svc.cluster.local",
                            }
                        }
                    ]
                }
            ],
        },
        "typed_extension_protocol_options": {
            HTTP: {"@type": f"type.googleapis.com/{HTTP}", "explicit_http_config": {"http_protocol_options": {}}}
        },
    }


def test_the_resolvers_of_the_model_are_asked() -> None:
    dns = {**EDGE["dns"], "resolvers": [{"address": "127.1.2.254", "port": 8053}], "query_timeout": "0.25s"}
    typed = built(dns=dns)["cluster_type"]["typed_config"]["typed_dns_resolver_config"]["typed_config"]
    assert typed["resolvers"] == [{"socket_address": {"address": "127.1.2.254", "port_value": 8053}}]
    # Envoy takes whole seconds.
    assert typed["query_timeout_seconds"] == 1


LOAD = {
    "cluster_name": "b",
    "endpoints": [
        {
            "lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}}},
                {"endpoint": {"address": {"socket_address": {"address": "10.0.0.2", "port_value": 81}}}},
            ]
        }
    ],
}


def test_static() -> None:
    result = built(discovery="static")
    assert (result["type"], result["load_assignment"]) == ("STATIC", LOAD)
    assert "cluster_type" not in result


def test_eds_reads_a_file_of_its_own() -> None:
    result = built(discovery="eds")
    assert result["type"] == "EDS"
    assert result["eds_cluster_config"] == {
        "eds_config": {
            "path_config_source": {
                "path": "/etc/envoy/eds.b.yaml",
                "watched_directory": {"path": "/etc/envoy"},
            },
            "resource_api_version": "V3",
        }
    }
    assert not {"cluster_type", "load_assignment"} & set(result)


def test_endpoints_are_those_of_eds_clusters() -> None:
    edges = [{**EDGE, "name": "a"}, {**EDGE, "discovery": "eds"}, {**EDGE, "name": "c", "discovery": "static"}]
    proxy = {"delivery": "files", "clusters": edges, "siblings": None, "paths": {"config": "/c"}}
    assert (endpoints(proxy), siblings(proxy)) == ({"b": LOAD}, [])


@pytest.mark.parametrize("delivery", ["files", "static"])
def test_siblings_are_the_proxys_own_workload(delivery: str) -> None:
    own = {**EDGE, "name": "a", "protocol": "tcp", "discovery": "eds"}
    proxy = {"delivery": delivery, "clusters": [EDGE], "siblings": own, "paths": {"config": "/c"}}
    (found,) = siblings(proxy)
    if delivery == "files":
        assert found["eds_cluster_config"]["eds_config"]["path_config_source"]["path"] == "/c/eds.a.yaml"
        assert list(endpoints(proxy)) == ["a"]
    else:
        assert found["load_assignment"] == {**LOAD, "cluster_name": "a"}
        assert endpoints(proxy) == {}


def test_without_files_endpoints_are_in_the_clusters() -> None:
    proxy = {"delivery": "static", "clusters": [{**EDGE, "discovery": "eds"}], "paths": {"config": "/c"}}
    assert [(item["type"], item["load_assignment"]) for item in clusters(proxy)] == [("STATIC", LOAD)]


def test_endpoints_by_zone() -> None:
    hosts = [{"address": f"10.0.0.{n}", "port": 80, "zone": zone} for n, zone in enumerate(["x", "y", "x", None])]
    found = load_assignment({**EDGE, "discovery": "eds", "endpoints": hosts})["endpoints"]
    ends = [
        [item["endpoint"]["address"]["socket_address"]["address"] for item in group["lb_endpoints"]] for group in found
    ]
    assert [group.get("locality") for group in found] == [{"zone": "x"}, {"zone": "y"}, None]
    assert ends == [["10.0.0.0", "10.0.0.2"], ["10.0.0.1"], ["10.0.0.3"]]


def test_outside_names_may_have_addresses_of_both_kinds() -> None:
    assert built(outside=True)["cluster_type"]["typed_config"]["dns_lookup_family"] == "V4_PREFERRED"


def test_no_endpoints_are_an_empty_list() -> None:
    assert load_assignment({**EDGE, "discovery": "eds", "endpoints": []}) == {
        "cluster_name": "b",
        "endpoints": [{"lb_endpoints": []}],
    }


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "random", "ring_hash", "maglev"])
def test_lb_policies(policy: str) -> None:
    assert built(lb_policy=policy)["lb_policy"] == policy.upper()


KEEPALIVE = {
    "http2_protocol_options": {
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
        "connection_keepalive": {"interval": "30s", "timeout": "5s"},
    }
}


@pytest.mark.parametrize(
    ("protocol", "explicit"),
    [
        ("http", {"http_protocol_options": {}}),
        ("http2", KEEPALIVE),
        ("grpc", KEEPALIVE),
        ("tcp", None),
        ("tls", None),
    ],
)
def test_protocols(protocol: str, explicit: dict[str, Any] | None) -> None:
    options = built(protocol=protocol).get("typed_extension_protocol_options")
    assert (options and options[HTTP]["explicit_http_config"]) == explicit


@pytest.mark.parametrize(
    ("protocol", "check", "question"),
    [
        ("http", {}, {"http_health_check": {"path": "/alive"}}),
        ("http2", {}, {"http_health_check": {"path": "/alive", "codec_client_type": "HTTP2"}}),
        ("grpc", {}, {"http_health_check": {"path": "/alive", "codec_client_type": "HTTP2"}}),
        ("grpc", {"type": "grpc"}, {"grpc_health_check": {}}),
        ("grpc", {"type": "grpc", "grpc_service": "a.B"}, {"grpc_health_check": {"service_name": "a.B"}}),
        ("tcp", {"type": "tcp"}, {"tcp_health_check": {}}),
    ],
)
def test_health_checks(protocol: str, check: dict[str, Any], question: dict[str, Any]) -> None:
    result = built(protocol=protocol, health_check={**HEALTH, **check})
    assert result["health_checks"] == [
        {
            "timeout": "1s",
            "interval": "10s",
            "unhealthy_interval": "2s",
            "no_traffic_interval": "10s",
            "healthy_threshold": 3,
            "unhealthy_threshold": 4,
            **question,
        }
    ]
    assert result["ignore_health_on_host_removal"] is True


# Failures

CONNECTION = dict.fromkeys(("idle_timeout", "max_duration", "max_requests", "tcp_keepalive", "tcp_user_timeout"))
LIMITS = {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4, "retry_budget": None}
OUTLIERS: dict[str, Any] = {
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
}
EJECTED = {
    "split_external_local_origin_errors": True,
    "consecutive_local_origin_failure": 2,
    "consecutive_gateway_failure": 5,
    "enforcing_consecutive_gateway_failure": 100,
    "enforcing_local_origin_success_rate": 0,
    "enforcing_consecutive_5xx": 0,
    "enforcing_success_rate": 0,
    "interval": "1s",
    "base_ejection_time": "10s",
    "max_ejection_time": "300s",
    "max_ejection_percent": 50,
}
KEEPALIVES = {"time": "30s", "interval": "10s", "probes": 3}


def new(**changes: Any) -> dict[str, Any]:
    """What a setting adds to a cluster, or changes."""
    before = built()
    return {key: value for key, value in built(**changes).items() if before.get(key) != value}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"circuit_breakers": LIMITS},
            {
                "circuit_breakers": {
                    "thresholds": [
                        {"max_connections": 1, "max_pending_requests": 2, "max_requests": 3, "max_retries": 4}
                    ]
                }
            },
        ),
        (
            {"circuit_breakers": {**LIMITS, "retry_budget": {"percent": 12.5, "min_concurrency": 3}}},
            {
                "circuit_breakers": {
                    "thresholds": [
                        {
                            "max_connections": 1,
                            "max_pending_requests": 2,
                            "max_requests": 3,
                            "max_retries": 4,
                            "retry_budget": {"budget_percent": {"value": 12.5}, "min_retry_concurrency": 3},
                        }
                    ]
                }
            },
        ),
        ({"outlier_detection": OUTLIERS}, {"outlier_detection": EJECTED}),
        (
            {
                "outlier_detection": {
                    **OUTLIERS,
                    "consecutive_5xx": 7,
                    "success_rate": {"stdev_factor": 1.9, "minimum_hosts": 4, "request_volume": 9},
                    "failure_percentage": {"threshold": 80, "minimum_hosts": 3, "request_volume": 8},
                }
            },
            {
                "outlier_detection": {
                    **{key: value for key, value in EJECTED.items() if key != "enforcing_consecutive_5xx"},
                    "consecutive_5xx": 7,
                    "enforcing_success_rate": 100,
                    "success_rate_stdev_factor": 1900,
                    "success_rate_minimum_hosts": 4,
                    "success_rate_request_volume": 9,
                    "enforcing_failure_percentage": 100,
                    "failure_percentage_threshold": 80,
                    "failure_percentage_minimum_hosts": 3,
                    "failure_percentage_request_volume": 8,
                }
            },
        ),
        ({"connection": CONNECTION}, {}),
        (
            {"connection": {**CONNECTION, "tcp_keepalive": KEEPALIVES, "tcp_user_timeout": "1.5s"}},
            {
                "upstream_connection_options": {
                    "tcp_keepalive": {"keepalive_probes": 3, "keepalive_time": 30, "keepalive_interval": 10}
                },
                "upstream_bind_config": {
                    "socket_options": [
                        {"description": "TCP_USER_TIMEOUT", "level": 6, "name": 18, "int_value": 1500},
                    ]
                },
            },
        ),
        ({"panic_threshold": 0}, {"common_lb_config": {"healthy_panic_threshold": {"value": 0}}}),
        (
            {"zone_aware": {"min_replicas": 2}, "panic_threshold": 80},
            {
                "common_lb_config": {
                    "healthy_panic_threshold": {"value": 80},
                    "zone_aware_lb_config": {"min_cluster_size": 2},
                }
            },
        ),
        (
            {
                "lb_policy": "least_request",
                "slow_start": {"window": "30s", "aggression": 1.5, "min_weight_percent": 5},
            },
            {
                "lb_policy": "LEAST_REQUEST",
                "least_request_lb_config": {
                    "slow_start_config": {
                        "slow_start_window": "30s",
                        "aggression": {"default_value": 1.5, "runtime_key": "upstream.slow_start.aggression"},
                        "min_weight_percent": {"value": 5},
                    }
                },
            },
        ),
    ],
)
def test_failures(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert new(**changes) == expected


def options(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = built(**changes)["typed_extension_protocol_options"][HTTP]
    return {key: value for key, value in found.items() if key not in ("@type", "explicit_http_config")}


def test_connections_of_http_have_an_age() -> None:
    connection = {**CONNECTION, "idle_timeout": "9s", "max_duration": "60s", "max_requests": 1000}
    assert options(connection=connection) == {
        "common_http_protocol_options": {
            "idle_timeout": "9s",
            "max_connection_duration": "60s",
            "max_requests_per_connection": 1000,
        }
    }
    assert options(connection=CONNECTION) == {}


def test_more_statuses_are_errors() -> None:
    rules = options(outlier_detection={**OUTLIERS, "errors": [429, 408]})["outlier_detection"]["error_matcher"][
        "or_match"
    ]
    headers = [rule["http_response_headers_match"]["headers"] for rule in rules["rules"]]
    assert headers == [
        [{"name": ":status", "range_match": {"start": 500, "end": 600}}],
        [{"name": ":status", "string_match": {"exact": "429"}}],
        [{"name": ":status", "string_match": {"exact": "408"}}],
    ]


@pytest.mark.parametrize(("certificate", "alpn"), [(None, ["h2"]), ("me", ["http/1.1"]), (None, [])])
def test_tls(certificate: str | None, alpn: list[str]) -> None:
    tls = {"server_name": "x.y", "ca_file": "/ca.crt", "client_certificate": certificate, "alpn": alpn}
    path = {"path": "/etc/envoy/sds.me.yaml", "watched_directory": {"path": "/etc/envoy"}}
    shown = [{"name": "me", "sds_config": {"path_config_source": path, "resource_api_version": "V3"}}]
    assert new(tls=tls)["transport_socket"] == {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "x.y",
            "common_tls_context": {
                **({"alpn_protocols": alpn} if alpn else {}),
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context": {
                    "trusted_ca": {"filename": "/ca.crt"},
                    "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "x.y"}}],
                },
                **({"tls_certificate_sds_secret_configs": shown} if certificate else {}),
            },
        },
    }


def test_the_patch_comes_last() -> None:
    patch = {"lb_policy": None, "connect_timeout": "9s", "circuit_breakers": {"thresholds": [{"max_retries": 1}]}}
    result = built(envoy_patch=patch)
    assert "lb_policy" not in result
    assert result["connect_timeout"] == "9s"
    assert result["circuit_breakers"] == {"thresholds": [{"max_retries": 1}]}


def test_clusters_in_the_models_order() -> None:
    proxy = {
        "delivery": "files",
        "paths": {"config": "/c"},
        "clusters": [{**EDGE, "name": name, "discovery": "eds"} for name in "cab"],
    }
    found = clusters(proxy)
    assert [item["name"] for item in found] == ["c", "a", "b"]
    assert found[0]["eds_cluster_config"]["eds_config"]["path_config_source"]["path"] == "/c/eds.c.yaml"
