# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy's files as a control plane sends them: over one stream, and with the replicas there are where the files have a
name that DNS knows. All else is as the files have it, so that nothing makes a cluster in another way.

Source: Envoy docs, "xDS REST and gRPC protocol", aggregated discovery service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE, LISTENERS_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, aggregated, socket_address, typed

Files = dict[str, str]
Resources = dict[str, dict[str, Config]]
"""``clusters``, ``endpoints``, ``listeners`` and ``routes``, each by name; every resource names its type."""
Replicas = dict[str, list[dict[str, str]]]
"""Replicas by DNS name of their service: ``address``, and ``health`` (one of Envoy's HealthStatus) unless healthy."""

_ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
_DNS = ("cluster_type", "load_assignment")
"""Fields of a cluster that asks DNS."""


def resources(files: Files, replicas: Replicas, suffix: str) -> Resources:
    """The resources of a proxy's config folder.

    ``suffix``: what the names of the mesh's services end with, such as ``default.svc.cluster.local``; other names are
    still asked for. Raises ValueError for text that is no discovery response.
    """
    found: Resources = {"clusters": {}, "endpoints": {}, "listeners": {}, "routes": {}}
    for item in _items(files, CLUSTERS_FILE):
        cluster, assignment = _cluster(item, replicas, suffix)
        found["clusters"][item["name"]] = cluster
        if assignment:
            found["endpoints"][item["name"]] = assignment
    for file in sorted(files):
        if file.startswith("eds."):
            found["endpoints"] |= {item["cluster_name"]: item for item in _items(files, file)}
        if file.startswith("rds."):
            found["routes"] |= {item["name"]: item for item in _items(files, file)}
    found["listeners"] = {item["name"]: _with_routes_sent(item) for item in _items(files, LISTENERS_FILE)}
    return found


def _items(files: Files, name: str) -> Iterator[Config]:
    try:
        yield from (envoy_yaml.load(files.get(name, "")) or {}).get("resources", [])
    except (envoy_yaml.YAMLError, AttributeError, TypeError) as exc:
        raise ValueError(f"{name}: is no discovery response: {exc}") from exc


def _cluster(item: Config, replicas: Replicas, suffix: str) -> tuple[Config, Config | None]:
    """A cluster whose endpoints are sent, and what is sent of them; others as they are."""
    sent = {"type": "EDS", "eds_cluster_config": {"eds_config": aggregated()}}
    if item.get("type") == "EDS":
        return {**item, **sent}, None
    asked = _asked_for(item)
    if asked is None or asked["address"] != f"{item['name']}.{suffix}.":
        return item, None
    hosts = [_lb_endpoint(host, asked["port_value"], asked["hostname"]) for host in _sorted(replicas, item, suffix)]
    rest = {key: value for key, value in item.items() if key not in _DNS}
    endpoints = [{"lb_endpoints": hosts}] if hosts else []
    return {**rest, **sent}, typed(_ASSIGNMENT, cluster_name=item["name"], endpoints=endpoints)


def _asked_for(item: Config) -> Config | None:
    """Name and port that a cluster asks DNS for: ``address`` with its trailing dot, ``port_value``, ``hostname``."""
    if "cluster_type" not in item:
        return None
    ((endpoint,),) = (group["lb_endpoints"] for group in item["load_assignment"]["endpoints"])
    asked: Config = endpoint["endpoint"]
    return {**asked["address"]["socket_address"], "hostname": asked.get("hostname")}


def _sorted(replicas: Replicas, item: Config, suffix: str) -> list[dict[str, str]]:
    return sorted(replicas.get(f"{item['name']}.{suffix}", []), key=lambda host: host["address"])


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
