"""Clusters: every edge of the model as Envoy writes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import cluster, clusters, endpoints, load_assignment

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
    "hostname": "b.default.svc.cluster.local",
    "port": 8786,
    "endpoints": [{"address": "10.0.0.1", "port": 80}, {"address": "10.0.0.2", "port": 81}],
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
    result = cluster(edge, "/etc/envoy")
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
    assert endpoints({"delivery": "files", "clusters": edges}) == {"b": LOAD}


def test_no_endpoints_are_an_empty_list() -> None:
    assert load_assignment({**EDGE, "discovery": "eds", "endpoints": []}) == {
        "cluster_name": "b",
        "endpoints": [{"lb_endpoints": []}],
    }


@pytest.mark.parametrize("policy", ["round_robin", "least_request", "random", "ring_hash", "maglev"])
def test_lb_policies(policy: str) -> None:
    assert built(lb_policy=policy)["lb_policy"] == policy.upper()


KEEPALIVE = {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}}


@pytest.mark.parametrize(
    ("protocol", "explicit"),
    [("http", {"http_protocol_options": {}}), ("http2", KEEPALIVE), ("grpc", KEEPALIVE), ("tcp", None)],
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
