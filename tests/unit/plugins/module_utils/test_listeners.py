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
}
ITEM: dict[str, Any] = {
    "name": "ingress_80",
    "direction": "ingress",
    "address": "0.0.0.0",
    "port": 80,
    "protocol": "http",
    "cluster": None,
    "hash_on": None,
    "virtual_hosts": [],
    "health_path": "/healthz",
    "access_log": {"format": "none"},
    "tls": None,
    "https_redirect": False,
    "listener_patch": {},
    "http_patch": {},
}


def built(**changes: Any) -> dict[str, Any]:
    item = {**copy.deepcopy(ITEM), **changes}
    before = copy.deepcopy(item)
    result = listener(item, PROXY)
    assert item == before
    return result


def filter_of(result: dict[str, Any]) -> dict[str, Any]:
    (chain,) = result["filter_chains"]
    (network,) = chain["filters"]
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
    "strip_any_host_port": False,
    "stream_error_on_invalid_http_message": True,
    "stream_idle_timeout": "300s",
    "request_headers_timeout": "10s",
    "common_http_protocol_options": {"idle_timeout": "3600s"},
    "http2_protocol_options": {
        "max_concurrent_streams": 100,
        "initial_stream_window_size": 65536,
        "initial_connection_window_size": 1048576,
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
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": MANAGER}]}
        ],
    }


def test_only_a_front_meets_strangers() -> None:
    assert filter_of(built(direction="front")) == {
        **MANAGER,
        "use_remote_address": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "always_set_request_id_in_response": True,
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": "REJECT_REQUEST",
        },
    }


def test_only_egress_takes_the_port_off_the_host() -> None:
    assert filter_of(built(direction="egress", health_path=None)) == {
        **MANAGER,
        "strip_any_host_port": True,
        "http_filters": [ROUTER],
    }


@pytest.mark.parametrize("protocol", ["http2", "grpc"])
def test_all_http_is_one(protocol: str) -> None:
    assert filter_of(built(protocol=protocol)) == MANAGER


def test_tcp() -> None:
    result = built(protocol="tcp", cluster="local_app")
    assert result["filter_chains"][0]["filters"][0]["name"] == "envoy.filters.network.tcp_proxy"
    assert filter_of(result) == {
        "@type": f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "ingress_80",
        "cluster": "local_app",
    }


def test_tcp_hashes_the_callers_address() -> None:
    hash_on = {"header": None, "cookie": None, "source_ip": True}
    assert filter_of(built(protocol="tcp", cluster="q", hash_on=hash_on))["hash_policy"] == [{"source_ip": {}}]


def log_format(**changes: Any) -> dict[str, Any]:
    (log,) = filter_of(built(**changes))["access_log"]
    assert log["name"] == "envoy.access_loggers.stdout"
    assert log["typed_config"]["@type"] == f"{EXTENSIONS}.access_loggers.stream.v3.StdoutAccessLog"
    found: dict[str, Any] = log["typed_config"]["log_format"]
    return found


def test_access_log_as_text() -> None:
    assert log_format(access_log={"format": "text"}) == {
        "text_format_source": {
            "inline_string": '[%START_TIME%] ingress_80 "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" '
            "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%ms %REQ(X-REQUEST-ID)% "
            '"%REQ(:AUTHORITY)%" -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n'
        }
    }
    assert log_format(access_log={"format": "text"}, protocol="tcp", cluster="q") == {
        "text_format_source": {
            "inline_string": "[%START_TIME%] ingress_80 tcp %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% "
            "%DURATION%ms %DOWNSTREAM_REMOTE_ADDRESS% -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n"
        }
    }


def test_access_log_as_json() -> None:
    fields = log_format(access_log={"format": "json"})["json_format"]
    assert fields["listener"] == "ingress_80"
    assert fields["request_id"] == "%REQ(X-REQUEST-ID)%"
    assert set(fields) == {
        *("time", "listener", "method", "authority", "path", "protocol", "status", "grpc_status", "flags"),
        *("bytes_received", "bytes_sent", "duration_ms", "request_id", "upstream_cluster", "upstream_host"),
    }


def test_no_access_log() -> None:
    assert "access_log" not in filter_of(built())


@pytest.mark.parametrize(("protocol", "alpn"), [("http", ["h2", "http/1.1"]), ("tcp", [])])
def test_tls(protocol: str, alpn: list[str]) -> None:
    (chain,) = built(tls="certs", protocol=protocol, cluster="q")["filter_chains"]
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
