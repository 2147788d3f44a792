# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's bootstrap and command line: all a process needs before it reads its first file.

Source of the fields: Envoy docs, "Bootstrap (proto)" and "Command line options".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters, siblings
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import (
    Config,
    extension,
    socket_address,
    watched_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.listeners import listeners
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, seconds

BOOTSTRAP_FILE = "bootstrap.yaml"
CLUSTERS_FILE = "cds.yaml"
LISTENERS_FILE = "lds.yaml"

# What dashboards, alerts and this collection read: whole families by their prefix, the rest by the last part.
_STATS_OF = ("server.", "cluster_manager.", "listener_manager.", "overload.", "sds.")
_STATS = (
    # Requests and connections of listeners and clusters.
    *("downstream_rq_total", "downstream_rq_active", "downstream_rq_time", "downstream_rq_timeout"),
    *("downstream_cx_total", "downstream_cx_active", "downstream_global_cx_overflow", "downstream_rq_overload_close"),
    *(f"{side}_rq_{kind}xx" for side in ("downstream", "upstream") for kind in range(1, 6)),
    *("upstream_rq_total", "upstream_rq_completed", "upstream_rq_active", "upstream_rq_time", "upstream_rq_timeout"),
    *("upstream_rq_retry", "upstream_rq_retry_success", "upstream_rq_retry_overflow", "upstream_rq_pending_active"),
    *("upstream_rq_pending_overflow", "upstream_rq_per_try_timeout", "upstream_rq_rx_reset", "upstream_rq_tx_reset"),
    *("upstream_cx_total", "upstream_cx_active", "upstream_cx_connect_fail", "upstream_cx_connect_timeout"),
    *("upstream_cx_overflow", "upstream_cx_none_healthy", "upstream_cx_rx_bytes_total", "upstream_cx_tx_bytes_total"),
    # Replicas: known, healthy, ejected, chosen.
    *("membership_total", "membership_healthy", "membership_change", "ejections_active", "ejections_enforced_total"),
    *("lb_healthy_panic", "lb_zone_routing_all_directly", "lb_zone_routing_cross_zone", "lb_zone_routing_sampled"),
    *("health_check.success", "health_check.failure", "health_check.attempt"),
    # Configuration: what was accepted, what was refused.
    *("version_text", "update_success", "update_failure", "update_rejected", "update_attempt", "config_reload"),
    # Limits and faults that were at work.
    *("rate_limited", "limited_connections", "delays_injected", "aborts_injected"),
    # TLS.
    *(
        "ssl.handshake",
        "ssl.connection_error",
        "ssl.fail_verify_error",
        "ssl.fail_verify_san",
        "ssl.fail_verify_no_cert",
    ),
    *("days_until_first_cert_expiring", "key_rotation_failed", "no_filter_chain_match"),
)


def bootstrap(proxy: dict[str, Any]) -> Config:
    """The bootstrap of a proxy: with its listeners and clusters (delivery static), or where to read them (files)."""
    base = {
        "admin": {"address": socket_address(proxy["addresses"]["admin"], proxy["envoy"]["admin_port"])},
        **_resources(proxy),
        **_stats(proxy["stats"]),
        "overload_manager": _overload_manager(proxy["envoy"]["overload"]),
        **({"cluster_manager": {"local_cluster_name": proxy["siblings"]["name"]}} if proxy["siblings"] else {}),
    }
    merged: Config = merge_patch(base, proxy["bootstrap_patch"])
    return merged


def _resources(proxy: dict[str, Any]) -> Config:
    if proxy["delivery"] == "static":
        return {"static_resources": {"clusters": [*clusters(proxy), *siblings(proxy)], "listeners": listeners(proxy)}}
    folder = proxy["paths"]["config"]
    return {
        "dynamic_resources": {
            "cds_config": watched_file(folder, CLUSTERS_FILE),
            "lds_config": watched_file(folder, LISTENERS_FILE),
        },
        **({"static_resources": {"clusters": siblings(proxy)}} if proxy["siblings"] else {}),
    }


def _stats(stats: dict[str, Any]) -> Config:
    """Which statistics are kept. Source: Envoy docs, "StatsMatcher"."""
    if stats["keep"] == "all":
        return {}
    patterns = [
        *({"prefix": name} for name in _STATS_OF),
        *({"suffix": f".{name}"} for name in (*_STATS, *stats["also"])),
    ]
    return {"stats_config": {"stats_matcher": {"inclusion_list": {"patterns": patterns}}}}


def _overload_manager(overload: dict[str, Any]) -> Config:
    """Source: Envoy docs, "Overload manager" and "Configuring Envoy as an edge proxy"."""
    heap = "envoy.resource_monitors.fixed_heap"
    monitors = "envoy.extensions.resource_monitors"

    def action(name: str, threshold: float) -> Config:
        return {
            "name": f"envoy.overload_actions.{name}",
            "triggers": [{"name": heap, "threshold": {"value": threshold}}],
        }

    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            extension(heap, f"{monitors}.fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=overload["max_heap"]),
            extension(
                "envoy.resource_monitors.global_downstream_max_connections",
                f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=overload["max_connections"],
            ),
        ],
        "actions": [action("shrink_heap", 0.95), action("stop_accepting_requests", 0.98)],
    }


def arguments(proxy: dict[str, Any], node: str) -> list[str]:
    """Envoy's arguments; ``node`` is the name of the replica.

    Unknown fields in files are refused as they are in the bootstrap: one typo would otherwise be dropped silently.
    """
    settings = proxy["envoy"]
    return [
        *("--config-path", f"{proxy['paths']['config']}/{BOOTSTRAP_FILE}"),
        *("--service-cluster", proxy["workload"]),
        *("--service-node", node),
        *(("--service-zone", proxy["zone"]) if proxy["zone"] else ()),
        *("--log-level", settings["log_level"]),
        *("--log-format", settings["log_format"]),
        *("--concurrency", str(settings["concurrency"])),
        *("--drain-time-s", str(max(1, round(seconds(settings["drain_time"]))))),
        *("--file-flush-interval-msec", "1000"),
        "--disable-hot-restart",
        "--reject-unknown-dynamic-fields",
        *settings["args"],
    ]
