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
    HTTP2,
    Config,
    extension,
    socket_address,
    typed,
    watched_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.names import (
    ADMIN_CLUSTER,
    COLLECTOR_CLUSTER,
    HEALTH_FILTER,
    routes_file,
    secret_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.routes import (
    FAULT,
    RATE_LIMIT,
    fraction,
    local_rate_limit,
    route_configuration,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_proxy import LOG_FIELDS
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present

_BUFFER_BYTES = 32768
_TRAFFIC = {"ingress": "INBOUND", "egress": "OUTBOUND"}
_VERSIONS_PAGE = "/stats?filter=version_text$&type=TextReadouts"
_UNDERSCORES = {"allow": "ALLOW", "reject": "REJECT_REQUEST", "drop": "DROP_HEADER"}
_ESCAPED_SLASHES = {
    "keep": "KEEP_UNCHANGED",
    "reject": "REJECT_REQUEST",
    "unescape": "UNESCAPE_AND_FORWARD",
    "redirect": "UNESCAPE_AND_REDIRECT",
}
_USUAL_FIELDS = (
    *("time", "method", "authority", "path", "protocol", "status", "grpc_status", "flags", "bytes_received"),
    *("bytes_sent", "duration_ms", "request_id", "upstream_cluster", "upstream_host"),
)
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
    """One listener of a proxy, with a filter chain for all, or one for each of the server names it tells apart."""
    base = {
        "name": item["name"],
        "address": socket_address(item["address"], item["port"]),
        # Two processes must never share a port unnoticed.
        "enable_reuse_port": False,
        # Spans say by it whether a request came or went.
        **present({"traffic_direction": _TRAFFIC.get(item["direction"])}),
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        **_listener_filters(item),
        "filter_chains": [{"filters": [*_connection_limit(item), _http(item, proxy)], **_tls(item, proxy)}]
        if item["protocol"] == "http"
        else [_tcp_chain(chain, item, proxy) for chain in item["chains"]],
        # Who overloads a proxy must not blind those who watch it.
        **({"ignore_global_conn_limit": True, "bypass_overload_manager": True} if _is_metrics(item) else {}),
    }
    merged: Config = merge_patch(base, item["listener_patch"])
    return merged


def _is_metrics(item: dict[str, Any]) -> bool:
    return bool(item["direction"] == "metrics")


def _listener_filters(item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "TLS inspector"."""
    if item["protocol"] != "tls":
        return {}
    kind = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    return {"listener_filters": [extension("envoy.filters.listener.tls_inspector", kind)]}


def _tcp_chain(chain: dict[str, Any], item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    wanted = {"filter_chain_match": {"server_names": chain["server_names"]}} if chain["server_names"] else {}
    return {**wanted, "filters": [*_connection_limit(item), _tcp_proxy(chain, item)], **_tls(item, proxy)}


def _connection_limit(item: dict[str, Any]) -> list[Config]:
    """Source: Envoy docs, "Connection limit"."""
    if item["max_connections"] is None:
        return []
    kind = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit"
    limit = {"stat_prefix": item["name"], "max_connections": item["max_connections"]}
    return [extension("envoy.filters.network.connection_limit", kind, **limit)]


def secrets(proxy: dict[str, Any]) -> dict[str, Config]:
    """What a proxy reads again when its file changes, by name: certificates that it serves or shows, and the token by
    which its control plane knows it. Source: Envoy docs, "Secret discovery service (SDS)"."""
    token = (proxy["control_plane"] or {}).get("token")
    return {
        **({token["name"]: _token(token)} if token else {}),
        **{name: _certificate(name, folder) for name, folder in proxy["paths"]["certificates"].items()},
    }


def _certificate(name: str, folder: str) -> Config:
    pair = {"certificate_chain": {"filename": f"{folder}/tls.crt"}, "private_key": {"filename": f"{folder}/tls.key"}}
    return {"name": name, "tls_certificate": {**pair, "watched_directory": {"path": folder}}}


def _token(token: dict[str, str]) -> Config:
    content = {"filename": f"{token['folder']}/token", "watched_directory": {"path": token["folder"]}}
    return {"name": token["name"], "generic_secret": {"secret": content}}


def _http(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """The HTTP connection manager of a listener, the user's patch last."""
    http = item["http"]
    base = {
        "stat_prefix": item["name"],
        "codec_type": "AUTO",
        **_trust(item),
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": _ESCAPED_SLASHES[http["escaped_slashes"]],
        "strip_any_host_port": item["direction"] == "egress",
        "stream_error_on_invalid_http_message": True,
        "stream_idle_timeout": http["stream_idle_timeout"],
        "request_timeout": http["request_timeout"],
        "request_headers_timeout": http["request_headers_timeout"],
        "max_request_headers_kb": http["max_request_headers_kb"],
        "common_http_protocol_options": {
            "idle_timeout": http["idle_timeout"],
            "max_headers_count": http["max_headers"],
            "headers_with_underscores_action": _UNDERSCORES[http["header_underscores"]],
            **present({"max_connection_duration": http["max_connection_duration"]}),
        },
        "http2_protocol_options": {"max_concurrent_streams": http["max_concurrent_streams"], **HTTP2},
        **_routes(item, proxy),
        **_access_log(item),
        **_tracing(item, proxy),
        "http_filters": [*_health_filter(item), *_rate_limit_filter(item), *_fault_filter(item), _router()],
    }
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": merge_patch(typed(manager, **base), item["http_patch"]),
    }


def _routes(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """Routes in a file of their own: inside the listener, old connections would keep the old ones."""
    if _is_metrics(item):
        return {"route_config": _metrics_routes(item["name"])}
    if proxy["delivery"] == "static":
        return {"route_config": route_configuration(item)}
    source = watched_file(proxy["paths"]["config"], routes_file(item["name"]))
    return {"rds": {"route_config_name": item["name"], "config_source": source}}


def _metrics_routes(name: str) -> Config:
    """Two pages of the admin interface, to be read only. Source: Envoy docs, "Administration interface"."""
    get = [{"name": ":method", "string_match": {"exact": "GET"}}]
    routes = [
        {
            "match": {"path": path, "headers": get},
            "route": {"cluster": ADMIN_CLUSTER, "prefix_rewrite": page},
        }
        for path, page in (("/stats/prometheus", "/stats/prometheus"), ("/config_versions", _VERSIONS_PAGE))
    ]
    return {"name": name, "virtual_hosts": [{"name": "metrics", "domains": ["*"], "routes": routes}]}


def _trust(item: dict[str, Any]) -> Config:
    """Only a front proxy meets strangers: it takes the peer's address as the client's, and makes the request id."""
    if item["direction"] != "front":
        return {}
    hops = item["http"]["trusted_hops"]
    return {
        "use_remote_address": True,
        "always_set_request_id_in_response": True,
        **({"xff_num_trusted_hops": hops} if hops else {}),
    }


def _tracing(item: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """Source: Envoy docs, "OpenTelemetry tracer"."""
    tracing = proxy["tracing"]
    if not tracing or _is_metrics(item):
        return {}
    cluster = {"envoy_grpc": {"cluster_name": COLLECTOR_CLUSTER}}
    address = f"{tracing['host']}:{tracing['port']}"
    uri = {"uri": f"http://{address}/v1/traces", "cluster": COLLECTOR_CLUSTER, "timeout": "1s"}
    service = {"grpc_service": cluster} if tracing["protocol"] == "grpc" else {"http_service": {"http_uri": uri}}
    kind = "envoy.config.trace.v3.OpenTelemetryConfig"
    settings = {**service, "service_name": proxy["workload"], "sampler": _sampler(tracing["sampling"])}
    provider = extension("envoy.tracers.opentelemetry", kind, **settings)
    # A front proxy is a hop of its own: what it receives and what it sends are two spans.
    two = {"spawn_upstream_span": True} if item["direction"] == "front" else {}
    return {"tracing": {"provider": provider, **two}}


def _sampler(percent: float) -> Config:
    """The caller's choice, else a share. Envoy's own random_sampling would take a share of what callers chose.

    Source: Envoy docs, "OpenTelemetry Samplers".
    """
    name, kind = "envoy.tracers.opentelemetry.samplers", "envoy.extensions.tracers.opentelemetry.samplers.v3"
    ratio = extension(
        f"{name}.trace_id_ratio_based", f"{kind}.TraceIdRatioBasedSamplerConfig", sampling_percentage=fraction(percent)
    )
    return extension(f"{name}.parent_based", f"{kind}.ParentBasedSamplerConfig", wrapped_sampler=ratio)


def _policies(item: dict[str, Any]) -> list[dict[str, Any]]:
    routes = [route for host in item["virtual_hosts"] for route in host["routes"]]
    return [route["policy"] for route in routes if "policy" in route]


def _rate_limit_filter(item: dict[str, Any]) -> list[Config]:
    """The listener's own limit, or a filter that only the limits of routes fill."""
    if not item["rate_limit"] and not any(policy["rate_limit"] for policy in _policies(item)):
        return []
    return [{"name": RATE_LIMIT, "typed_config": local_rate_limit(item["rate_limit"])}]


def _fault_filter(item: dict[str, Any]) -> list[Config]:
    if not any(policy["fault"] for policy in _policies(item)):
        return []
    return [extension(FAULT, "envoy.extensions.filters.http.fault.v3.HTTPFault")]


def _health_filter(item: dict[str, Any]) -> list[Config]:
    """Answers probes in the proxy itself. Source: Envoy docs, "Health check" (HTTP filter)."""
    if item["health_path"] is None:
        return []
    headers = [
        {"name": ":path", "string_match": {"exact": item["health_path"]}},
        {"name": "x-envoy-livenessprobe", "string_match": {"exact": "healthz"}},
    ]
    kind = "envoy.extensions.filters.http.health_check.v3.HealthCheck"
    return [extension(HEALTH_FILTER, kind, pass_through_mode=False, headers=headers)]


def _router() -> Config:
    return extension("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")


def _tcp_proxy(chain: dict[str, Any], item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "TCP proxy"."""
    kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
    clusters, connects = chain["clusters"], chain["connects"]
    if len(clusters) == 1:
        wanted: Config = {"cluster": clusters[0]["name"]}
    else:
        shares = [{"name": cluster["name"], "weight": cluster["weight"]} for cluster in clusters]
        wanted = {"weighted_clusters": {"clusters": shares}}
    # Of what a caller may hash, TCP has the address only.
    hashing: Config = {"hash_policy": [{"source_ip": {}}]} if chain["hash_on"] else {}
    return extension(
        "envoy.filters.network.tcp_proxy",
        kind,
        stat_prefix=item["name"],
        **wanted,
        max_connect_attempts=connects["connect_attempts"],
        **present({"idle_timeout": connects["idle_timeout"]}),
        **hashing,
        **_access_log(item),
    )


def _access_log(item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "Access logging" and "Stdout access logger"."""
    log = item["access_log"]
    if log["format"] == "none":
        return {}
    kind = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"
    logger = extension("envoy.access_loggers.stdout", kind, log_format=_log_format(log, item))
    return {"access_log": [{**logger, **_log_filter(log)}]}


def _log_format(log: dict[str, Any], item: dict[str, Any]) -> Config:
    chosen = {name: LOG_FIELDS[name] for name in log["fields"] or _USUAL_FIELDS}
    chosen |= dict(sorted(log["extra_fields"].items()))
    if log["format"] == "json":
        return {"json_format": {"listener": item["name"], **chosen}}
    if log["fields"] or log["extra_fields"]:
        line = " ".join([f"listener={item['name']}", *(f"{name}={value}" for name, value in chosen.items())])
        return {"text_format_source": {"inline_string": f"{line}\n"}}
    line = _LOG_LINE if item["protocol"] == "http" else _TCP_LOG_LINE
    return {"text_format_source": {"inline_string": line.replace("{listener}", item["name"])}}


def _log_filter(log: dict[str, Any]) -> Config:
    """All errors, and a share of the rest. Source: Envoy docs, "Access log filters"."""
    if log["sample"] == 100:
        return {}
    kept: list[Config] = [
        {
            "status_code_filter": {
                "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "access_log.error_status"}}
            }
        },
        # What is no call of gRPC has a status that is not OK either.
        {
            "and_filter": {
                "filters": [
                    {
                        "header_filter": {
                            "header": {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
                        }
                    },
                    {"grpc_status_filter": {"statuses": ["OK"], "exclude": True}},
                ]
            }
        },
        {"response_flag_filter": {}},
    ]
    if log["sample"]:
        share = {"runtime_key": "access_log.sample", "percent_sampled": fraction(log["sample"])}
        kept.append({"runtime_filter": {**share, "use_independent_randomness": True}})
    return {"filter": {"or_filter": {"filters": kept}}}


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
