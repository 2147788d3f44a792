"""Listeners: filters, logs, TLS and certificates as Envoy writes them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.listeners import listener, listeners, secrets

EXTENSIONS = "type.googleapis.com/envoy.extensions"
PROXY: dict[str, Any] = {
    "delivery": "files",
    "paths": {"config": "/etc/envoy", "certificates": {"certs": "/etc/ssl/envoy"}},
    "control_plane": None,
    "workload": "shop",
    "tracing": None,
}
HTTP: dict[str, Any] = {
    "max_request_headers_kb": 60,
    "max_headers": 100,
    "header_underscores": "allow",
    "escaped_slashes": "keep",
    "request_headers_timeout": "10s",
    "request_timeout": "0s",
    "stream_idle_timeout": "300s",
    "idle_timeout": "3600s",
    "max_connection_duration": None,
    "max_concurrent_streams": 100,
    "trusted_hops": 0,
}
LOG: dict[str, Any] = {"format": "none", "fields": None, "extra_fields": {}, "sample": 100}
CHAIN: dict[str, Any] = {
    "server_names": [],
    "clusters": [{"name": "local_app", "weight": 1}],
    "hash_on": None,
    "connects": {"connect_attempts": 3, "idle_timeout": None},
}
ITEM: dict[str, Any] = {
    "name": "ingress_80",
    "direction": "ingress",
    "address": "0.0.0.0",
    "port": 80,
    "protocol": "http",
    "virtual_hosts": [],
    "chains": [CHAIN],
    "http": HTTP,
    "health_path": "/healthz",
    "access_log": LOG,
    "rate_limit": None,
    "max_connections": None,
    "tls": None,
    "https_redirect": False,
    "listener_patch": {},
    "http_patch": {},
}


def built(proxy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    item = {**copy.deepcopy(ITEM), **changes}
    before = copy.deepcopy(item)
    result = listener(item, {**PROXY, **(proxy or {})})
    assert item == before
    return result


def filter_of(result: dict[str, Any]) -> dict[str, Any]:
    (chain,) = result["filter_chains"]
    network = chain["filters"][-1]
    found: dict[str, Any] = network["typed_config"]
    return found


def source(file: str) -> dict[str, Any]:
    path = {"path": f"/etc/envoy/{file}", "watched_directory": {"path": "/etc/envoy"}}
    return {"path_config_source": path, "resource_api_version": "V3"}


ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"},
}
HEALTH = {
    "name": "envoy.filters.http.health_check",
    "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.health_check.v3.HealthCheck",
        "pass_through_mode": False,
        "headers": [
            {"name": ":path", "string_match": {"exact": "/healthz"}},
            {"name": "x-envoy-livenessprobe", "string_match": {"exact": "healthz"}},
        ],
    },
}
MANAGER: dict[str, Any] = {
    "@type": f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "stat_prefix": "ingress_80",
    "codec_type": "AUTO",
    "normalize_path": True,
    "merge_slashes": True,
    "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
    "strip_any_host_port": False,
    "stream_error_on_invalid_http_message": True,
    "stream_idle_timeout": "300s",
    "request_timeout": "0s",
    "request_headers_timeout": "10s",
    "max_request_headers_kb": 60,
    "common_http_protocol_options": {
        "idle_timeout": "3600s",
        "max_headers_count": 100,
        "headers_with_underscores_action": "ALLOW",
    },
    "http2_protocol_options": {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
        "connection_keepalive": {"interval": "30s", "timeout": "5s"},
    },
    "rds": {"route_config_name": "ingress_80", "config_source": source("rds.ingress_80.yaml")},
    "http_filters": [HEALTH, ROUTER],
}


def test_an_ingress_listener() -> None:
    assert built() == {
        "name": "ingress_80",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 80}},
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 32768,
        "traffic_direction": "INBOUND",
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": MANAGER}]}
        ],
    }


@pytest.mark.parametrize(("hops", "believed"), [(0, {}), (2, {"xff_num_trusted_hops": 2})])
def test_only_a_front_meets_strangers(hops: int, believed: dict[str, int]) -> None:
    http = {**HTTP, "trusted_hops": hops}
    assert filter_of(built(direction="front", http=http)) == {
        **MANAGER,
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        **believed,
    }
    assert filter_of(built(http=http)) == MANAGER


@pytest.mark.parametrize(
    ("http", "expected"),
    [
        ({"escaped_slashes": "reject"}, {"path_with_escaped_slashes_action": "REJECT_REQUEST"}),
        ({"escaped_slashes": "unescape"}, {"path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD"}),
        ({"escaped_slashes": "redirect"}, {"path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"}),
        (
            {"request_timeout": "1s", "request_headers_timeout": "2s", "stream_idle_timeout": "3s"},
            {"request_timeout": "1s", "request_headers_timeout": "2s", "stream_idle_timeout": "3s"},
        ),
        ({"max_request_headers_kb": 9}, {"max_request_headers_kb": 9}),
        (
            {"header_underscores": "drop", "max_headers": 8, "idle_timeout": "4s", "max_connection_duration": "5s"},
            {
                "common_http_protocol_options": {
                    "idle_timeout": "4s",
                    "max_headers_count": 8,
                    "headers_with_underscores_action": "DROP_HEADER",
                    "max_connection_duration": "5s",
                }
            },
        ),
        (
            {"max_concurrent_streams": 7},
            {"http2_protocol_options": {**MANAGER["http2_protocol_options"], "max_concurrent_streams": 7}},
        ),
    ],
)
def test_what_is_taken_from_clients(http: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filter_of(built(http={**HTTP, **http})) == {**MANAGER, **expected}


def test_only_egress_takes_the_port_off_the_host() -> None:
    assert filter_of(built(direction="egress", health_path=None)) == {
        **MANAGER,
        "strip_any_host_port": True,
        "http_filters": [ROUTER],
    }


TCP = {
    "@type": f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
    "stat_prefix": "ingress_80",
    "cluster": "local_app",
    "max_connect_attempts": 3,
}


def test_tcp() -> None:
    result = built(protocol="tcp")
    assert result["filter_chains"][0]["filters"][0]["name"] == "envoy.filters.network.tcp_proxy"
    assert filter_of(result) == TCP
    assert "listener_filters" not in result


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (
            {"hash_on": {"header": None, "cookie": None, "source_ip": True}},
            {**TCP, "hash_policy": [{"source_ip": {}}]},
        ),
        (
            {"connects": {"connect_attempts": 1, "idle_timeout": "9s"}},
            {**TCP, "max_connect_attempts": 1, "idle_timeout": "9s"},
        ),
        (
            {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]},
            {
                **{key: value for key, value in TCP.items() if key != "cluster"},
                "weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]},
            },
        ),
    ],
)
def test_connections_of_tcp(chain: dict[str, Any], expected: dict[str, Any]) -> None:
    assert filter_of(built(protocol="tcp", chains=[{**CHAIN, **chain}])) == expected


def test_tls_is_told_apart_by_name() -> None:
    chains = [{**CHAIN, "server_names": ["x.y"]}, {**CHAIN, "server_names": ["*.z"]}]
    result = built(protocol="tls", chains=chains)
    assert [item["name"] for item in result["listener_filters"]] == ["envoy.filters.listener.tls_inspector"]
    assert [item["filter_chain_match"] for item in result["filter_chains"]] == [
        {"server_names": ["x.y"]},
        {"server_names": ["*.z"]},
    ]
    for chain in result["filter_chains"]:
        assert "transport_socket" not in chain


@pytest.mark.parametrize("protocol", ["http", "tcp", "tls"])
def test_a_limit_of_connections_comes_first(protocol: str) -> None:
    result = built(protocol=protocol, chains=[CHAIN, CHAIN], max_connections=5)
    assert len(result["filter_chains"]) == (1 if protocol == "http" else 2)
    for chain in result["filter_chains"]:
        assert chain["filters"][0]["name"] == "envoy.filters.network.connection_limit"
        assert chain["filters"][0]["typed_config"] == {
            "@type": f"{EXTENSIONS}.filters.network.connection_limit.v3.ConnectionLimit",
            "stat_prefix": "ingress_80",
            "max_connections": 5,
        }


# Filters of HTTP


def http_filters(rate_limit: Any, *policies: dict[str, Any]) -> list[str]:
    routes = [{"policy": {"rate_limit": None, "fault": None, **policy}} for policy in policies]
    hosts = [{"routes": [{"answer": {}}, *routes]}]
    found = filter_of(built(virtual_hosts=hosts, rate_limit=rate_limit))["http_filters"]
    return [item["name"].removeprefix("envoy.filters.http.") for item in found]


LIMIT = {"requests": 9, "per": "1s", "burst": None}


@pytest.mark.parametrize(
    ("rate_limit", "policies", "filters"),
    [
        (None, [{}], ["health_check", "router"]),
        (LIMIT, [{}], ["health_check", "local_ratelimit", "router"]),
        (None, [{}, {"rate_limit": LIMIT}], ["health_check", "local_ratelimit", "router"]),
        (None, [{"fault": {"delay": {}}}], ["health_check", "fault", "router"]),
        (LIMIT, [{"fault": {"delay": {}}}], ["health_check", "local_ratelimit", "fault", "router"]),
    ],
)
def test_filters_that_routes_need(rate_limit: Any, policies: list[dict[str, Any]], filters: list[str]) -> None:
    assert http_filters(rate_limit, *policies) == filters


def test_a_listeners_own_rate_limit() -> None:
    found = filter_of(built(rate_limit=LIMIT))["http_filters"][1]["typed_config"]
    assert found["token_bucket"] == {"max_tokens": 9, "tokens_per_fill": 9, "fill_interval": "1s"}


def test_metrics_are_two_pages_that_are_only_read() -> None:
    result = built(direction="metrics", name="metrics_80", health_path=None, proxy={"tracing": {"host": "x"}})
    assert (result["ignore_global_conn_limit"], result["bypass_overload_manager"]) == (True, True)
    manager = filter_of(result)
    assert "rds" not in manager
    assert "tracing" not in manager
    (host,) = manager["route_config"]["virtual_hosts"]
    shown = [
        (item["match"]["path"], item["match"]["headers"], item["route"]["cluster"], item["route"]["prefix_rewrite"])
        for item in host["routes"]
    ]
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    assert shown == [
        ("/stats/prometheus", get, "envoy_admin", "/stats/prometheus"),
        ("/config_versions", get, "envoy_admin", "/stats?filter=version_text$&type=TextReadouts"),
    ]


def test_without_files_routes_are_in_the_listener() -> None:
    manager = filter_of(built(proxy={"delivery": "static"}))
    assert (manager["route_config"]["name"], "rds" in manager) == ("ingress_80", False)


SAMPLERS = "envoy.extensions.tracers.opentelemetry.samplers.v3"
SAMPLER = {
    "name": "envoy.tracers.opentelemetry.samplers.parent_based",
    "typed_config": {
        "@type": f"type.googleapis.com/{SAMPLERS}.ParentBasedSamplerConfig",
        "wrapped_sampler": {
            "name": "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
            "typed_config": {
                "@type": f"type.googleapis.com/{SAMPLERS}.TraceIdRatioBasedSamplerConfig",
                "sampling_percentage": {"numerator": 125000, "denominator": "MILLION"},
            },
        },
    },
}


@pytest.mark.parametrize(
    ("protocol", "service"),
    [
        ("grpc", {"grpc_service": {"envoy_grpc": {"cluster_name": "otel_collector"}}}),
        (
            "http",
            {
                "http_service": {
                    "http_uri": {"uri": "http://otel:4318/v1/traces", "cluster": "otel_collector", "timeout": "1s"}
                }
            },
        ),
    ],
)
def test_traces(protocol: str, service: dict[str, Any]) -> None:
    tracing = {"host": "otel", "port": 4318, "protocol": protocol, "sampling": 12.5}
    assert filter_of(built(proxy={"tracing": tracing}))["tracing"] == {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                **service,
                "service_name": "shop",
                "sampler": SAMPLER,
            },
        },
    }
    # A front proxy has a span for what it receives and one for what it sends.
    assert filter_of(built(proxy={"tracing": tracing}, direction="front"))["tracing"]["spawn_upstream_span"] is True


# Access logs


def log_of(log: dict[str, Any], **changes: Any) -> dict[str, Any]:
    (found,) = filter_of(built(access_log={**LOG, **log}, **changes))["access_log"]
    assert found["name"] == "envoy.access_loggers.stdout"
    assert found["typed_config"]["@type"] == f"{EXTENSIONS}.access_loggers.stream.v3.StdoutAccessLog"
    return dict(found)


def log_format(log: dict[str, Any], **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = log_of(log, **changes)["typed_config"]["log_format"]
    return found


def test_access_log_as_text() -> None:
    assert log_format({"format": "text"}) == {
        "text_format_source": {
            "inline_string": '[%START_TIME%] ingress_80 "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%ms %REQ(X-REQUEST-ID)% "
            '"%REQ(:AUTHORITY)%" -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n'
        }
    }
    assert log_format({"format": "text"}, protocol="tcp") == {
        "text_format_source": {
            "inline_string": "[%START_TIME%] ingress_80 tcp %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% "
            "%DURATION%ms %DOWNSTREAM_REMOTE_ADDRESS% -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n"
        }
    }


def test_access_log_as_json() -> None:
    fields = log_format({"format": "json"})["json_format"]
    assert fields["listener"] == "ingress_80"
    assert fields["request_id"] == "%REQ(X-REQUEST-ID)%"
    assert set(fields) == {
        *("time", "listener", "method", "authority", "path", "protocol", "status", "grpc_status", "flags"),
        *("bytes_received", "bytes_sent", "duration_ms", "request_id", "upstream_cluster", "upstream_host"),
    }


def test_fields_of_ones_own() -> None:
    own = {"fields": ["status", "trace_id"], "extra_fields": {"user": "%REQ(X-USER)%"}}
    assert log_format({"format": "json", **own})["json_format"] == {
        "listener": "ingress_80",
        "status": "%RESPONSE_CODE%",
        "trace_id": "%TRACE_ID%",
        "user": "%REQ(X-USER)%",
    }
    line = "listener=ingress_80 status=%RESPONSE_CODE% trace_id=%TRACE_ID% user=%REQ(X-USER)%\n"
    assert log_format({"format": "text", **own}) == {"text_format_source": {"inline_string": line}}
    more = log_format({"format": "text", "extra_fields": {"user": "x"}})["text_format_source"]["inline_string"]
    assert more.startswith("listener=ingress_80 time=%START_TIME% method=")
    assert more.endswith(" user=x\n")


@pytest.mark.parametrize(
    ("sample", "share"),
    [
        (100, None),
        (0, []),
        (0.5, [{"numerator": 5000, "denominator": "MILLION"}]),
    ],
)
def test_of_a_sample_errors_are_logged_all(sample: float, share: list[Any] | None) -> None:
    found = log_of({"format": "text", "sample": sample})
    if share is None:
        assert "filter" not in found
        return
    kept = found["filter"]["or_filter"]["filters"]
    assert [next(iter(item)) for item in kept[:3]] == ["status_code_filter", "and_filter", "response_flag_filter"]
    assert kept[0]["status_code_filter"]["comparison"]["value"]["default_value"] == 500
    assert [item["runtime_filter"]["percent_sampled"] for item in kept[3:]] == share


def test_no_access_log() -> None:
    assert "access_log" not in filter_of(built())


@pytest.mark.parametrize(("protocol", "alpn"), [("http", ["h2", "http/1.1"]), ("tcp", [])])
def test_tls(protocol: str, alpn: list[str]) -> None:
    (chain,) = built(tls="certs", protocol=protocol)["filter_chains"]
    assert chain["transport_socket"] == {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": alpn,
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [{"name": "certs", "sds_config": source("sds.certs.yaml")}],
            },
        },
    }


def test_secrets_are_read_again_when_their_folder_changes() -> None:
    assert secrets(PROXY) == {
        "certs": {
            "name": "certs",
            "tls_certificate": {
                "certificate_chain": {"filename": "/etc/ssl/envoy/tls.crt"},
                "private_key": {"filename": "/etc/ssl/envoy/tls.key"},
                "watched_directory": {"path": "/etc/ssl/envoy"},
            },
        }
    }


def test_patches_come_last() -> None:
    result = built(
        listener_patch={"per_connection_buffer_limit_bytes": None, "stat_prefix": "x"},
        http_patch={"server_name": "y", "http2_protocol_options": {"max_concurrent_streams": 1}},
    )
    assert "per_connection_buffer_limit_bytes" not in result
    assert result["stat_prefix"] == "x"
    manager = filter_of(result)
    assert manager["server_name"] == "y"
    assert manager["http2_protocol_options"] == {**MANAGER["http2_protocol_options"], "max_concurrent_streams": 1}


def test_no_two_listeners_share_a_part() -> None:
    """A patch of one would show in the other."""
    first, second = listeners({**PROXY, "listeners": [ITEM, ITEM]})
    before = json.dumps(second)
    filter_of(first)["http2_protocol_options"]["max_concurrent_streams"] = 1
    filter_of(first)["http_filters"][0]["typed_config"]["headers"].clear()
    assert json.dumps(second) == before
