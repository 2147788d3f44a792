# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's bootstrap and command line: all a process needs before it reads its first file.

Source of the fields: Envoy docs, "Bootstrap (proto)" and "Command line options".
"""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters, control_plane, siblings
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import (
    Config,
    aggregated,
    extension,
    socket_address,
    watched_file,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.listeners import listeners
from ansible_collections.sidecar.mesh.plugins.module_utils.names import CONTROL_PLANE_CLUSTER
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present, seconds

BOOTSTRAP_FILE = "bootstrap.yaml"
FALLBACK_FILE = "fallback.yaml"
"""By which a proxy starts whose control plane does not answer."""
CLUSTERS_FILE = "cds.yaml"
LISTENERS_FILE = "lds.yaml"

_RECONNECT = {"retry_back_off": {"base_interval": "0.5s", "max_interval": "5s"}}
"""By itself Envoy takes up to 30 s to come back to a control plane that was away."""
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
    """The bootstrap of a proxy: with its listeners and clusters (delivery static), or where they come from."""
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
    known = [*control_plane(proxy), *siblings(proxy)]
    return {
        "dynamic_resources": _from_control_plane() if proxy["delivery"] == "ads" else _from_files(proxy),
        **present({"static_resources": present({"clusters": known})}),
    }


def _from_files(proxy: dict[str, Any]) -> Config:
    folder = proxy["paths"]["config"]
    return {
        "cds_config": watched_file(folder, CLUSTERS_FILE),
        "lds_config": watched_file(folder, LISTENERS_FILE),
    }


def _from_control_plane() -> Config:
    """Source: Envoy docs, "xDS API endpoints"."""
    return {
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "transport_api_version": "V3",
            "set_node_on_first_message_only": True,
            "grpc_services": [{"envoy_grpc": {"cluster_name": CONTROL_PLANE_CLUSTER, "retry_policy": _RECONNECT}}],
        },
        "cds_config": aggregated(),
        "lds_config": aggregated(),
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


# A connection is all it takes: who may not have one is not let in, and who is not ready has no address in DNS.
_START = """\
start=bootstrap
until timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2" 2>/dev/null; do
  if ((SECONDS >= $3)); then start=fallback; break; fi
  sleep 0.2
done
exec "$0" --config-path "$4/$start.yaml" "${@:5}"
"""


def command(proxy: dict[str, Any], node: str, program: str = "envoy") -> list[str]:
    """The command line of a proxy; ``node`` is the name of the replica.

    With a control plane it starts by a shell, which chooses between bootstrap and fallback: a proxy that starts without
    a control plane would have no listener until there is one again.
    """
    sender = proxy["control_plane"]
    if not sender:
        return [program, *arguments(proxy, node)]
    patience = str(math.ceil(seconds(sender["patience"])))
    asked = [sender["asked"], str(sender["port"]), patience, proxy["paths"]["config"]]
    return ["bash", "-c", _START, program, *asked, *_settings(proxy, node)]


def arguments(proxy: dict[str, Any], node: str) -> list[str]:
    """Envoy's arguments without a control plane; ``node`` is the name of the replica."""
    return ["--config-path", f"{proxy['paths']['config']}/{BOOTSTRAP_FILE}", *_settings(proxy, node)]


def _settings(proxy: dict[str, Any], node: str) -> list[str]:
    """Unknown fields in files are refused as they are in the bootstrap: a typo would otherwise be dropped silently."""
    settings = proxy["envoy"]
    return [
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
