# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy listeners: where a proxy accepts connections, and the filters they pass.

Source of the fields: Envoy docs, "Listener (proto)", "HTTP connection manager (proto)" and "Configuring Envoy as an
edge proxy".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import (
    Config,
    extension,
    socket_address,
    typed,
    watched_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.names import routes_file, secret_file
from ansible_collections.sidecar.mesh.plugins.module_utils.routes import route_configuration
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch

_BUFFER_BYTES = 32768
_LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_host": "%UPSTREAM_HOST%",
}
_LOG_LINE = (
    '[%START_TIME%] {listener} "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%ms %REQ(X-REQUEST-ID)% "
    '"%REQ(:AUTHORITY)%" -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n'
)
_TCP_LOG_LINE = (
    "[%START_TIME%] {listener} tcp %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION%ms "
    "%DOWNSTREAM_REMOTE_ADDRESS% -> %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\n"
)


def listeners(proxy: dict[str, Any]) -> list[Config]:
    """Every listener of a proxy of the model."""
    return [listener(item, proxy) for item in proxy["listeners"]]


def listener(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """One listener of a proxy, with its only filter chain."""
    network = _tcp_proxy(item) if item["protocol"] == "tcp" else _http(item, proxy)
    base = {
        "name": item["name"],
        "address": socket_address(item["address"], item["port"]),
        # Two processes must never share a port unnoticed.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        "filter_chains": [{"filters": [network], **_tls(item, proxy)}],
    }
    merged: Config = merge_patch(base, item["listener_patch"])
    return merged


def secrets(proxy: dict[str, Any]) -> dict[str, Config]:
    """Certificates a proxy serves: ``{name: secret}``. Source: Envoy docs, "Secret discovery service (SDS)"."""
    return {
        name: {
            "name": name,
            "tls_certificate": {
                "certificate_chain": {"filename": f"{folder}/tls.crt"},
                "private_key": {"filename": f"{folder}/tls.key"},
                "watched_directory": {"path": folder},
            },
        }
        for name, folder in proxy["paths"]["certificates"].items()
    }


def _http(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """The HTTP connection manager of a listener, the user's patch last."""
    base = {
        "stat_prefix": item["name"],
        "codec_type": "AUTO",
        **_trust(item),
        "normalize_path": True,
        "merge_slashes": True,
        "strip_any_host_port": item["direction"] == "egress",
        "stream_error_on_invalid_http_message": True,
        "stream_idle_timeout": "300s",
        "request_headers_timeout": "10s",
        "common_http_protocol_options": _common_options(item),
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65536,
            "initial_connection_window_size": 1048576,
        },
        **_routes(item, proxy),
        **_access_log(item),
        "http_filters": [*_health_filter(item), _router()],
    }
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": merge_patch(typed(manager, **base), item["http_patch"]),
    }


def _routes(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """Routes in a file of their own: inside the listener, old connections would keep the old ones."""
    if proxy["delivery"] == "static":
        return {"route_config": route_configuration(item)}
    source = watched_file(proxy["paths"]["config"], routes_file(item["name"]))
    return {"rds": {"route_config_name": item["name"], "config_source": source}}


def _trust(item: dict[str, Any]) -> Config:
    """Only a front proxy meets strangers: it takes the peer's address as the client's, and makes the request id."""
    if item["direction"] != "front":
        return {}
    return {
        "use_remote_address": True,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT",
        "always_set_request_id_in_response": True,
    }


def _common_options(item: dict[str, Any]) -> Config:
    strict: Config = {"headers_with_underscores_action": "REJECT_REQUEST"} if item["direction"] == "front" else {}
    return {"idle_timeout": "3600s", **strict}


def _health_filter(item: dict[str, Any]) -> list[Config]:
    """Answers probes in the proxy itself. Source: Envoy docs, "Health check" (HTTP filter)."""
    if item["health_path"] is None:
        return []
    headers = [
        {"name": ":path", "string_match": {"exact": item["health_path"]}},
        {"name": "x-envoy-livenessprobe", "string_match": {"exact": "healthz"}},
    ]
    kind = "envoy.extensions.filters.http.health_check.v3.HealthCheck"
    return [extension("envoy.filters.http.health_check", kind, pass_through_mode=False, headers=headers)]


def _router() -> Config:
    return extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")


def _tcp_proxy(item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "TCP proxy"."""
    kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    # Of what a caller may hash, TCP has the address only.
    hashing: Config = {"hash_policy": [{"source_ip": {}}]} if item["hash_on"] else {}
    return extension(
        "envoy.filters.network.tcp_proxy",
        kind,
        stat_prefix=item["name"],
        cluster=item["cluster"],
        **hashing,
        **_access_log(item),
    )


def _access_log(item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "Access logging" and "Stdout access logger"."""
    style = item["access_log"]["format"]
    if style == "none":
        return {}
    if style == "json":
        log_format: Config = {"json_format": {"listener": item["name"], **_LOG_FIELDS}}
    else:
        line = _TCP_LOG_LINE if item["protocol"] == "tcp" else _LOG_LINE
        log_format = {"text_format_source": {"inline_string": line.replace("{listener}", item["name"])}}
    kind = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    return {"access_log": [extension("envoy.access_loggers.stdout", kind, log_format=log_format)]}


def _tls(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """TLS termination with a certificate that Envoy reads again when its file changes."""
    if item["tls"] is None:
        return {}
    source = watched_file(proxy["paths"]["config"], secret_file(item["tls"]))
    context = {
        "alpn_protocols": ["h2", "http/1.1"] if item["protocol"] == "http" else [],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": item["tls"], "sds_config": source}],
    }
    kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    return {"transport_socket": extension("envoy.transport_sockets.tls", kind, common_tls_context=context)}
