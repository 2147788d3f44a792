# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy clusters: how one proxy reaches the replicas of a service.

Source of the fields: Envoy docs, "Clusters (proto)" and "Upstreams".
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
from ansible_collections.sidecar.mesh.plugins.module_utils.names import endpoints_file
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch

_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_BUFFER_BYTES = 32768


def clusters(proxy: dict[str, Any]) -> list[Config]:
    """Every cluster of a proxy of the model, in the model's order."""
    return [cluster(edge, proxy["paths"]["config"]) for edge in _edges(proxy)]


def cluster(edge: dict[str, Any], config_path: str) -> Config:
    """Envoy cluster of one edge of the model; ``config_path`` is the folder with the proxy's files."""
    base = {
        "name": edge["name"],
        "connect_timeout": edge["connect_timeout"],
        "per_connection_buffer_limit_bytes": _BUFFER_BYTES,
        **_lb_policy(edge),
        **_discovery(edge, config_path),
        **_protocol(edge),
        **_health_check(edge),
    }
    merged: Config = merge_patch(base, edge["envoy_patch"])
    return merged


def endpoints(proxy: dict[str, Any]) -> dict[str, Config]:
    """Load assignments of the clusters discovered by EDS: ``{cluster: assignment}``."""
    return {edge["name"]: load_assignment(edge) for edge in _edges(proxy) if edge["discovery"] == "eds"}


def _edges(proxy: dict[str, Any]) -> list[dict[str, Any]]:
    """Without files of its own, a proxy has the endpoints inside its clusters."""
    if proxy["delivery"] == "files":
        return list(proxy["clusters"])
    return [
        {**edge, "discovery": {"eds": "static"}.get(edge["discovery"], edge["discovery"])} for edge in proxy["clusters"]
    ]


def load_assignment(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "ClusterLoadAssignment"."""
    hosts = (
        [{"address": f"{edge['hostname']}.", "port": edge["port"]}] if edge["discovery"] == "dns" else edge["endpoints"]
    )
    return {
        "cluster_name": edge["name"],
        "endpoints": [{"lb_endpoints": [{"endpoint": _endpoint(host, edge)} for host in hosts]}],
    }


def _endpoint(host: dict[str, Any], edge: dict[str, Any]) -> Config:
    # The trailing dot of the address spares a resolver its search domains; nothing else may see it.
    named = {"hostname": edge["hostname"]} if edge["discovery"] == "dns" else {}
    return {"address": socket_address(host["address"], host["port"]), **named}


def _lb_policy(edge: dict[str, Any]) -> Config:
    return {"lb_policy": edge["lb_policy"].upper()}


def _discovery(edge: dict[str, Any], config_path: str) -> Config:
    if edge["discovery"] == "eds":
        source = watched_file(config_path, endpoints_file(edge["name"]))
        return {"type": "EDS", "eds_cluster_config": {"eds_config": source}}
    if edge["discovery"] == "static":
        return {"type": "STATIC", "load_assignment": load_assignment(edge)}
    return {"cluster_type": _dns_cluster(edge["dns"]), "load_assignment": load_assignment(edge)}


def _dns_cluster(dns: dict[str, Any]) -> Config:
    """Source: Envoy docs, "DNS cluster" and "c-ares DNS resolver"."""
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
        dns_lookup_family="V4_ONLY",
        typed_dns_resolver_config=resolver,
    )


def _protocol(edge: dict[str, Any]) -> Config:
    """Source: Envoy docs, "HTTP protocol options"."""
    if edge["protocol"] == "tcp":
        return {}
    if edge["protocol"] == "http":
        explicit: Config = {"http_protocol_options": {}}
    else:
        explicit = {"http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}}
    options = typed(_HTTP_OPTIONS, explicit_http_config=explicit)
    return {"typed_extension_protocol_options": {_HTTP_OPTIONS: options}}


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
