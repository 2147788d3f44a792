# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy's files as a control plane sends them: over one stream, and with the replicas there are where the files have
a name that DNS knows. All else is as the files have it, so that nothing makes a cluster in another way.

Source: Envoy docs, "xDS REST and gRPC protocol", aggregated discovery service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE, LISTENERS_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, aggregated, socket_address, typed
from ansible_collections.sidecar.mesh.plugins.module_utils.files import ENDPOINTS
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import Resources

Files = dict[str, str]
Replicas = dict[str, list[dict[str, str]]]
"""Replicas by DNS name of their service: ``address``, and ``health`` (one of Envoy's HealthStatus) unless healthy."""

_DNS = ("cluster_type", "load_assignment")
"""Fields of a cluster that asks DNS."""


def read(files: Files) -> Resources:
    """The resources of a proxy's config folder, as its files have them. Raises ValueError for text that is none."""
    clusters = {item["name"]: item for item in _items(files, CLUSTERS_FILE)}
    found: Resources = {"clusters": clusters, "endpoints": {}, "listeners": {}, "routes": {}}
    found["listeners"] = {item["name"]: item for item in _items(files, LISTENERS_FILE)}
    for file in sorted(files):
        if file.startswith("eds."):
            found["endpoints"] |= {item["cluster_name"]: item for item in _items(files, file)}
        if file.startswith("rds."):
            found["routes"] |= {item["name"]: item for item in _items(files, file)}
    return found


def asked_for(resources: Resources, suffix: str) -> set[str]:
    """The DNS names of the mesh's services that clusters ask for, whose replicas are sent instead.

    ``suffix``: what they end with, such as ``default.svc.cluster.local``; other names are still asked for.
    """
    return {f"{name}.{suffix}" for name, item in resources["clusters"].items() if _is_of_mesh(item, suffix)}


def sent(resources: Resources, replicas: Replicas, suffix: str) -> Resources:
    """Resources as they are sent: clusters and listeners that wait for the rest of them, and the replicas there are."""
    clusters = resources["clusters"]
    asking = {name: item for name, item in clusters.items() if _is_of_mesh(item, suffix)}
    return {
        "clusters": {name: _with_endpoints_sent(item, asks=name in asking) for name, item in clusters.items()},
        "endpoints": {
            **resources["endpoints"],
            **{name: _assignment(item, replicas.get(f"{name}.{suffix}", [])) for name, item in asking.items()},
        },
        "listeners": {name: _with_routes_sent(item) for name, item in resources["listeners"].items()},
        "routes": resources["routes"],
    }


def _items(files: Files, name: str) -> Iterator[Config]:
    try:
        yield from (envoy_yaml.load(files.get(name, "")) or {}).get("resources", [])
    except (envoy_yaml.YAMLError, AttributeError, TypeError) as exc:
        raise ValueError(f"{name}: is no discovery response: {exc}") from exc


def _is_of_mesh(item: Config, suffix: str) -> bool:
    asked = _asked(item)
    return asked is not None and asked["address"]["socket_address"]["address"] == f"{item['name']}.{suffix}."


def _asked(item: Config) -> Config | None:
    """The endpoint of a cluster that asks DNS: its address has the name, with a dot at the end, and the port."""
    if "cluster_type" not in item:
        return None
    endpoints = [each for group in item["load_assignment"]["endpoints"] for each in group["lb_endpoints"]]
    return dict(endpoints[0]["endpoint"]) if endpoints else None


def _with_endpoints_sent(item: Config, *, asks: bool) -> Config:
    if not asks and item.get("type") != "EDS":
        return item
    rest = {key: value for key, value in item.items() if key not in _DNS}
    return {**rest, "type": "EDS", "eds_cluster_config": {"eds_config": aggregated()}}


def _assignment(item: Config, hosts: list[dict[str, str]]) -> Config:
    asked = _asked(item) or {}
    port, hostname = asked["address"]["socket_address"]["port_value"], asked.get("hostname")
    ordered = sorted(hosts, key=lambda host: host["address"])
    endpoints = [{"lb_endpoints": [_lb_endpoint(host, port, hostname) for host in ordered]}] if hosts else []
    return typed(ENDPOINTS, cluster_name=item["name"], endpoints=endpoints)


def _lb_endpoint(host: dict[str, str], port: int, hostname: str | None) -> Config:
    named = {"hostname": hostname} if hostname else {}
    health = {"health_status": host["health"]} if "health" in host else {}
    return {"endpoint": {"address": socket_address(host["address"], port), **named}, **health}


def _with_routes_sent(item: Any) -> Any:
    """A listener whose routes are sent, too, instead of read from a file."""
    if isinstance(item, list):
        return [_with_routes_sent(each) for each in item]
    if not isinstance(item, dict):
        return item
    return {
        key: {**value, "config_source": aggregated()} if key == "rds" else _with_routes_sent(value)
        for key, value in item.items()
    }
