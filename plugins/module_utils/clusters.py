# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy clusters: how one proxy reaches the replicas of a service.

Source of the fields: Envoy docs, "Clusters (proto)" and "Upstreams".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import (
    HTTP2,
    Config,
    aggregated,
    extension,
    socket_address,
    typed,
    watched_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.names import TOKEN_HEADER, endpoints_file, secret_file
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import HTTP_PROTOCOLS
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present, seconds

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_BUFFER_BYTES = 32768
_IPPROTO_TCP = 6
_TCP_USER_TIMEOUT = 18


def clusters(proxy: dict[str, Any]) -> list[Config]:
    """Every cluster of a proxy of the model, in the model's order."""
    return [cluster(edge, proxy) for edge in _edges(proxy)]


def control_plane(proxy: dict[str, Any]) -> list[Config]:
    """The cluster of what sends a proxy its configuration, which must be in the bootstrap; none without one."""
    return [cluster(proxy["control_plane"], proxy)] if proxy["delivery"] == "ads" else []


def cluster(edge: dict[str, Any], proxy: dict[str, Any]) -> Config:
    """One cluster of a proxy, of an edge of the model."""
    config_path = proxy["paths"]["config"]
    base = {
        "name": edge["name"],
        "connect_timeout": edge["connect_timeout"],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        **_lb_policy(edge),
        **_discovery(edge, proxy),
        **_protocol(edge, config_path),
        **_health_check(edge),
        **_connection(edge["connection"]),
        **_circuit_breakers(edge["circuit_breakers"]),
        **_outlier_detection(edge["outlier_detection"]),
        **_tls(edge, config_path),
    }
    merged: Config = merge_patch(base, edge["envoy_patch"])
    return merged


def siblings(proxy: dict[str, Any]) -> list[Config]:
    """The cluster of the proxy's own workload, which must be in the bootstrap; none where zones do not matter."""
    if proxy["siblings"] is None:
        return []
    return [cluster(_discovered(proxy["siblings"], proxy), proxy)]


def endpoints(proxy: dict[str, Any]) -> dict[str, Config]:
    """Load assignments of the clusters discovered by EDS: ``{cluster: assignment}``."""
    edges = [*_edges(proxy), *([_discovered(proxy["siblings"], proxy)] if proxy["siblings"] else [])]
    return {edge["name"]: load_assignment(edge) for edge in edges if edge["discovery"] == "eds"}


def _edges(proxy: dict[str, Any]) -> list[dict[str, Any]]:
    return [_discovered(edge, proxy) for edge in proxy["clusters"]]


def _discovered(edge: dict[str, Any], proxy: dict[str, Any]) -> dict[str, Any]:
    """Without files of its own, a proxy has the endpoints inside its clusters."""
    if proxy["delivery"] == "static" and edge["discovery"] == "eds":
        return {**edge, "discovery": "static"}
    return edge


def load_assignment(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "ClusterLoadAssignment"."""
    if edge["discovery"] == "dns":
        zones: dict[str | None, list[Config]] = {None: [{"address": f"{edge['hostname']}.", "port": edge["port"]}]}
    else:
        zones = {} if edge["endpoints"] else {None: []}
        for host in edge["endpoints"]:
            zones.setdefault(host["zone"], []).append(host)
    return {
        "cluster_name": edge["name"],
        "endpoints": [
            {
                **({"locality": {"zone": zone}} if zone else {}),
                "lb_endpoints": [{"endpoint": _endpoint(host, edge)} for host in hosts],
            }
            for zone, hosts in zones.items()
        ],
    }


def _endpoint(host: dict[str, Any], edge: dict[str, Any]) -> Config:
    # The trailing dot of the address spares a resolver its search domains; nothing else may see it.
    named = {"hostname": edge["hostname"]} if edge["discovery"] == "dns" else {}
    return {"address": socket_address(host["address"], host["port"]), **named}


def _lb_policy(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "Load balancing": zone aware routing, panic threshold, slow start."""
    common: Config = {}
    if edge["panic_threshold"] is not None:
        common["healthy_panic_threshold"] = {"value": edge["panic_threshold"]}
    if edge["zone_aware"]:
        common["zone_aware_lb_config"] = {"min_cluster_size": edge["zone_aware"]["min_replicas"]}
    elif any(host["zone"] for host in edge["endpoints"]):
        # One edge that asks for it gives the proxy a zone; on all others Envoy would then prefer it from 6 replicas on.
        common["zone_aware_lb_config"] = {"routing_enabled": {"value": 0}}
    slow: Config = {}
    if edge["slow_start"]:
        start = edge["slow_start"]
        slow[f"{edge['lb_policy']}_lb_config"] = {
            "slow_start_config": {
                "slow_start_window": start["window"],
                "aggression": {"default_value": start["aggression"], "runtime_key": "upstream.slow_start.aggression"},
                "min_weight_percent": {"value": start["min_weight_percent"]},
            }
        }
    return {"lb_policy": edge["lb_policy"].upper(), **present({"common_lb_config": common}), **slow}


def _discovery(edge: dict[str, Any], proxy: dict[str, Any]) -> Config:
    if edge["discovery"] == "eds":
        file = watched_file(proxy["paths"]["config"], endpoints_file(edge["name"]))
        source = aggregated() if proxy["delivery"] == "ads" else file
        return {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
    if edge["discovery"] == "static":
        return {"type": "STATIC", "load_assignment": load_assignment(edge)}
    return {"cluster_type": _dns_cluster(edge), "load_assignment": load_assignment(edge)}


def _dns_cluster(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "DNS cluster" and "c-ares DNS resolver"."""
    dns = edge["dns"]
    resolver = extension(
        "envoy.network.dns_resolver.cares",
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        **(
            {"resolvers": [socket_address(r["address"], r["port"]) for r in dns["resolvers"]]}
            if dns["resolvers"]
            else {}
        ),
        query_timeout_seconds=max(1, round(float(dns["query_timeout"][:-1]))),
        query_tries=dns["query_tries"],
        dns_resolver_options={"no_default_search_domain": True},
    )
    return extension(
        "envoy.clusters.dns",
        "envoy.extensions.clusters.dns.v3.DnsCluster",
        dns_refresh_rate=dns["refresh_rate"],
        dns_failure_refresh_rate={"base_interval": "1s", "max_interval": "5s"},
        dns_jitter=dns["jitter"],
        dns_lookup_family="V4_PREFERRED" if edge["outside"] else "V4_ONLY",
        typed_dns_resolver_config=resolver,
    )


def _protocol(edge: dict[str, Any], config_path: str) -> Config:
    """Source: Envoy docs, "HTTP protocol options" and "Outlier detection", HTTP error matcher."""
    if edge["protocol"] not in HTTP_PROTOCOLS:
        return {}
    if edge["protocol"] == "http":
        explicit: Config = {"http_protocol_options": {}}
    else:
        explicit = {"http2_protocol_options": HTTP2}
    connection = edge["connection"] or {}
    common = {
        "idle_timeout": connection.get("idle_timeout"),
        "max_connection_duration": connection.get("max_duration"),
        "max_requests_per_connection": connection.get("max_requests"),
    }
    errors = (edge["outlier_detection"] or {}).get("errors")
    options = typed(
        _HTTP_OPTIONS,
        explicit_http_config=explicit,
        **present({"common_http_protocol_options": present(common)}),
        **({"outlier_detection": {"error_matcher": _error_matcher(errors)}} if errors else {}),
        **({"http_filters": _shows_token(edge["token"], config_path)} if edge["token"] else {}),
    )
    return {"typed_extension_protocol_options": {_HTTP_OPTIONS: options}}


def _shows_token(token: dict[str, str], config_path: str) -> list[Config]:
    """Source: Envoy docs, "Credential injector" and "Upstream codec"."""
    injected = "envoy.extensions.http.injected_credentials.generic.v3.Generic"
    source = watched_file(config_path, secret_file(token["name"]))
    credential = extension(
        "envoy.http.injected_credentials.generic",
        injected,
        credential={"name": token["name"], "sds_config": source},
        header=TOKEN_HEADER,
    )
    injector = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector"
    codec = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
    return [
        extension("envoy.filters.http.credential_injector", injector, overwrite=True, credential=credential),
        extension("envoy.filters.http.upstream_codec", codec),
    ]


def _error_matcher(errors: list[int]) -> Config:
    """What counts as an error: 5xx as always, and these statuses."""
    exact = [{"name": ":status", "string_match": {"exact": str(status)}} for status in errors]
    server = {"name": ":status", "range_match": {"start": 500, "end": 600}}
    return {"or_match": {"rules": [{"http_response_headers_match": {"headers": [one]}} for one in [server, *exact]]}}


def _health_check(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "Health check"."""
    check = edge["health_check"]
    if check is None:
        return {}
    questions: dict[str, Config] = {
        "http": {"http_health_check": {"path": check["path"]}},
        "grpc": {"grpc_health_check": {"service_name": check["grpc_service"]} if check["grpc_service"] else {}},
        "tcp": {"tcp_health_check": {}},
    }
    question = questions[check["type"]]
    if check["type"] == "http" and edge["protocol"] != "http":
        question["http_health_check"]["codec_client_type"] = "HTTP2"
    keys = ("timeout", "interval", "unhealthy_interval", "healthy_threshold", "unhealthy_threshold")
    settings = {key: check[key] for key in keys}
    return {
        # By default Envoy checks a cluster without traffic once a minute.
        "health_checks": [{**settings, "no_traffic_interval": check["interval"], **question}],
        # Else a replica that left DNS stays in use for as long as it answers checks.
        "ignore_health_on_host_removal": True,
    }


def _connection(connection: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "TcpKeepalive" and "SocketOption"; Linux manual, tcp(7), TCP_USER_TIMEOUT."""
    connection = connection or {}
    found: Config = {}
    keepalive = connection.get("tcp_keepalive")
    if keepalive:
        found["upstream_connection_options"] = {
            "tcp_keepalive": {
                "keepalive_probes": keepalive["probes"],
                "keepalive_time": round(seconds(keepalive["time"])),
                "keepalive_interval": round(seconds(keepalive["interval"])),
            }
        }
    if connection.get("tcp_user_timeout"):
        option = {
            "description": "TCP_USER_TIMEOUT",
            "level": _IPPROTO_TCP,
            "name": _TCP_USER_TIMEOUT,
            "int_value": round(seconds(connection["tcp_user_timeout"]) * 1000),
        }
        found["upstream_bind_config"] = {"socket_options": [option]}
    return found


def _circuit_breakers(limits: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "Circuit breakers (proto)"."""
    if not limits:
        return {}
    keys = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    budget = limits["retry_budget"]
    threshold: Config = {key: limits[key] for key in keys if limits[key] is not None}
    if budget:
        threshold["retry_budget"] = {
            "budget_percent": {"value": budget["percent"]},
            "min_retry_concurrency": budget["min_concurrency"],
        }
    return {"circuit_breakers": {"thresholds": [threshold]}}


def _outlier_detection(outliers: dict[str, Any] | None) -> Config:
    """Every kind of failure that was not asked for is turned off. Source: Envoy docs, "Outlier detection (proto)"."""
    if not outliers:
        return {}
    found: Config = {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": outliers["consecutive_local_origin_failure"],
        "consecutive_gateway_failure": outliers["consecutive_gateway_failure"],
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        **{
            key: outliers[key]
            for key in ("interval", "base_ejection_time", "max_ejection_time", "max_ejection_percent")
        },
    }
    if outliers["consecutive_5xx"] is None:
        found["enforcing_consecutive_5xx"] = 0
    else:
        found["consecutive_5xx"] = outliers["consecutive_5xx"]
    rate, share = outliers["success_rate"], outliers["failure_percentage"]
    found["enforcing_success_rate"] = 100 if rate else 0
    if rate:
        found["success_rate_stdev_factor"] = round(rate["stdev_factor"] * 1000)
        found["success_rate_minimum_hosts"] = rate["minimum_hosts"]
        found["success_rate_request_volume"] = rate["request_volume"]
    if share:
        found["enforcing_failure_percentage"] = 100
        found["failure_percentage_threshold"] = share["threshold"]
        found["failure_percentage_minimum_hosts"] = share["minimum_hosts"]
        found["failure_percentage_request_volume"] = share["request_volume"]
    return {"outlier_detection": found}


def _tls(edge: dict[str, Any], config_path: str) -> Config:
    """Source: Envoy docs, "TLS transport socket (proto)", UpstreamTlsContext."""
    tls = edge["tls"]
    if tls is None:
        return {}
    name = tls["server_name"]
    certificate = tls["client_certificate"]
    common: Config = {
        "alpn_protocols": tls["alpn"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "validation_context": {
            "trusted_ca": {"filename": tls["ca_file"]},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
        },
    }
    if certificate:
        source = watched_file(config_path, secret_file(certificate))
        common["tls_certificate_sds_secret_configs"] = [{"name": certificate, "sds_config": source}]
    kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    context = present({"sni": name, "common_tls_context": present(common)})
    return {"transport_socket": extension("envoy.transport_sockets.tls", kind, **context)}
