# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy's files as a control plane sends them: over one stream, and with the replicas there are where the files have
a name that DNS knows. All else is as the files have it, so that nothing makes a cluster in another way.

Source: Envoy docs, "xDS REST and gRPC protocol", aggregated discovery service.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE, LISTENERS_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, aggregated, socket_address, typed
from ansible_collections.sidecar.mesh.plugins.module_utils.files import ENDPOINTS
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import Resources

Files = dict[str, str]
Replicas = dict[str, list[dict[str, str]]]
"""Replicas by DNS name of their service: ``address``, and ``health`` (one of Envoy's HealthStatus) unless healthy."""


class Asked(NamedTuple):
    """What a cluster asks DNS for: a name, and the port and host name that its replicas have."""

    name: str
    port: int
    hostname: str | None


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


def asked_for(resources: Resources, suffix: str) -> dict[str, Asked]:
    """What clusters ask DNS for of the mesh's own services, whose replicas are sent instead, by cluster.

    ``suffix``: what their names end with, such as ``default.svc.cluster.local``; other names are still asked for.
    """
    found = {name: _asked(item) for name, item in resources["clusters"].items()}
    return {name: asked for name, asked in found.items() if asked and asked.name == f"{name}.{suffix}"}


def sent(resources: Resources, asked: dict[str, Asked]) -> Resources:
    """Resources as they are sent, but for the replicas of what was ``asked`` for: clusters and listeners wait for the
    rest of them."""
    clusters, listeners = resources["clusters"], resources["listeners"]
    return {
        **resources,
        "clusters": {name: _with_endpoints_sent(item, asks=name in asked) for name, item in clusters.items()},
        "listeners": {name: _with_routes_sent(item) for name, item in listeners.items()},
    }


def assignments(asked: dict[str, Asked], replicas: Replicas) -> dict[str, Config]:
    """The replicas there are of what clusters ask for, by cluster."""
    return {name: _assignment(name, item, replicas.get(item.name, [])) for name, item in asked.items()}


def _items(files: Files, name: str) -> Iterator[Config]:
    try:
        yield from (envoy_yaml.load(files.get(name, "")) or {}).get("resources", [])
    except (envoy_yaml.YAMLError, AttributeError, TypeError) as exc:
        raise ValueError(f"{name}: is no discovery response: {exc}") from exc


def _asked(item: Config) -> Asked | None:
    """What a cluster asks DNS for: its address has the name, with a dot at the end, and the port."""
    if "cluster_type" not in item:
        return None
    endpoints = [each["endpoint"] for group in item["load_assignment"]["endpoints"] for each in group["lb_endpoints"]]
    if not endpoints:
        return None
    address = endpoints[0]["address"]["socket_address"]
    return Asked(address["address"].removesuffix("."), address["port_value"], endpoints[0].get("hostname"))


def _with_endpoints_sent(item: Config, *, asks: bool) -> Config:
    if not asks and item.get("type") != "EDS":
        return item
    rest = {key: value for key, value in item.items() if key not in _DNS}
    return {**rest, "type": "EDS", "eds_cluster_config": {"eds_config": aggregated()}}


def _assignment(cluster: str, asked: Asked, hosts: list[dict[str, str]]) -> Config:
    ordered = sorted(hosts, key=lambda host: host["address"])
    endpoints = [_lb_endpoint(host, asked) for host in ordered]
    return typed(ENDPOINTS, cluster_name=cluster, endpoints=[{"lb_endpoints": endpoints}] if hosts else [])


def _lb_endpoint(host: dict[str, str], asked: Asked) -> Config:
    named = {"hostname": asked.hostname} if asked.hostname else {}
    health = {"health_status": host["health"]} if "health" in host else {}
    return {"endpoint": {"address": socket_address(host["address"], asked.port), **named}, **health}


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
