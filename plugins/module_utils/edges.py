# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Edges: the clusters through which one proxy calls others, with every setting decided.

An edge is plain data and all the builder of clusters needs: ``name``, ``protocol``, ``hostname``, ``port``,
``endpoints``, ``dns``, ``outside`` (of the mesh), ``tls``, ``token`` (what is shown to the callee: ``name``,
``folder``), ``envoy_patch``, and the keys of the schema's EDGE.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services
from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.local import (
    DNS_PORT,
    control_plane_address,
    dns_address,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import EDGE, SLOW_STARTING_POLICIES

Item = dict[str, Any]

CONNECT_TIMEOUT = "1s"
# Numbers for which a replica that vanished costs no request: Envoy looks for another one soon enough.
IDEMPOTENT_CONNECT_TIMEOUT = "0.25s"
IDEMPOTENT_OUTLIERS: Item = check(True, EDGE["outlier_detection"], "", [])
# What a replica that died had to do is tried again all at the same time; of Envoy's 3 retries at once many would fail.
RETRY_BUDGET: Item = {"percent": 50, "min_concurrency": 100}
NO_LIMITS: Item = check({}, EDGE["circuit_breakers"], "", [])

CONTROL_PLANE_FOLDER = "/var/run/sidecar-mesh"
"""Where a pod has the authority of the control plane, and the token by which it proves who it is."""
CONTROL_PLANE_CA = f"{CONTROL_PLANE_FOLDER}/ca.crt"

_PLAIN: Item = {**dict.fromkeys((*EDGE, "hostname", "tls", "token", "dns")), "outside": False}
_IP = re.compile(r"[0-9.]+")


def edge(callee: Item, settings: Item | None, world: Item, *, idempotent: bool = False) -> Item:
    """The edge to a service. ``settings``: the caller's entry for it, whose values go before the service's own."""
    chosen = {key: _first((settings or {}).get(key), callee[key]) for key in EDGE}
    idempotent = idempotent or bool(settings and settings["idempotent"])
    mesh = world["mesh"]
    return {
        **chosen,
        "name": callee["name"],
        "protocol": callee["protocol"],
        "connect_timeout": chosen["connect_timeout"] or (IDEMPOTENT_CONNECT_TIMEOUT if idempotent else CONNECT_TIMEOUT),
        "outlier_detection": _outliers(chosen["outlier_detection"], idempotent),
        "circuit_breakers": _limits(chosen["circuit_breakers"], callee),
        "health_check": health_check(chosen["health_check"], callee["protocol"]),
        # A caller may choose otherwise than a service that starts slowly.
        "slow_start": chosen["slow_start"] if chosen["lb_policy"] in SLOW_STARTING_POLICIES else None,
        "zone_aware": chosen["zone_aware"] or None,
        "hostname": callee["host"] or names.dns_name(callee["name"], mesh["namespace"], mesh["domain"]),
        "port": services.port(callee),
        "endpoints": _endpoints(callee, world),
        # The mesh's own servers know only the mesh's names.
        "dns": mesh["dns"] if callee["host"] else world["dns"],
        "tls": _tls(callee, mesh),
        "token": None,
        "outside": bool(callee["host"]),
        "envoy_patch": patch(settings, "cluster"),
    }


def application(service: Item, address: str) -> Item:
    """The edge from a sidecar to its own application."""
    return {
        **_PLAIN,
        "name": names.APPLICATION_CLUSTER,
        "protocol": service["protocol"],
        "discovery": "static",
        "lb_policy": "round_robin",
        "connect_timeout": service["connect_timeout"] or CONNECT_TIMEOUT,
        "health_check": health_check(service["health_check"], service["protocol"]),
        "circuit_breakers": service["sidecar"]["circuit_breakers"],
        "port": service["port"],
        "endpoints": [{"address": address, "port": service["port"], "zone": None}],
        "envoy_patch": patch(service, "cluster"),
    }


def collector(mesh: Item) -> Item | None:
    """The edge to the collector of traces, if there is one."""
    tracing = mesh["tracing"]
    if not tracing:
        return None
    host, port = tracing["host"], tracing["port"]
    return {
        **_PLAIN,
        "name": names.COLLECTOR_CLUSTER,
        "protocol": tracing["protocol"],
        "discovery": "static" if _IP.fullmatch(host) else "dns",
        "lb_policy": "round_robin",
        "connect_timeout": CONNECT_TIMEOUT,
        "hostname": host,
        "port": port,
        "endpoints": [{"address": host, "port": port, "zone": None}],
        "dns": mesh["dns"],
        "outside": True,
        "envoy_patch": {},
    }


def control_plane(mesh: Item) -> Item | None:
    """The edge to what sends a proxy its configuration, if the mesh has it. Each proves to the other who it is."""
    if mesh["config_delivery"] != "ads":
        return None
    local = mesh["engine"] == "local"
    folder = f"{mesh['state_path']}/{names.CONTROL_PLANE}" if local else CONTROL_PLANE_FOLDER
    return {
        **_PLAIN,
        "name": names.CONTROL_PLANE_CLUSTER,
        "protocol": "grpc",
        "lb_policy": "round_robin",
        "connect_timeout": CONNECT_TIMEOUT,
        "port": mesh["control_plane"]["port"],
        **(_on_this_machine(mesh) if local else _in_cluster(mesh)),
        "token": {"name": names.CONTROL_PLANE_TOKEN, "folder": folder},
        "patience": mesh["control_plane"]["patience"],
        "envoy_patch": {},
    }


def _in_cluster(mesh: Item) -> Item:
    hostname = names.dns_name(names.control_plane(mesh["name"]), mesh["namespace"], mesh["domain"])
    return {
        "discovery": "dns",
        "hostname": hostname,
        "endpoints": [],
        "dns": mesh["dns"],
        "tls": {"server_name": hostname, "ca_file": CONTROL_PLANE_CA, "client_certificate": None, "alpn": ["h2"]},
        "asked": f"{hostname}.",
    }


def _on_this_machine(mesh: Item) -> Item:
    address = control_plane_address(mesh["name"])
    endpoint = {"address": address, "port": mesh["control_plane"]["port"], "zone": None}
    return {"discovery": "static", "endpoints": [endpoint], "asked": address}


def admin(address: str, port: int) -> Item:
    """The edge from a proxy to its own admin interface."""
    return {
        **_PLAIN,
        "name": names.ADMIN_CLUSTER,
        "protocol": "http",
        "discovery": "static",
        "lb_policy": "round_robin",
        "connect_timeout": CONNECT_TIMEOUT,
        "port": port,
        "endpoints": [{"address": address, "port": port, "zone": None}],
        "envoy_patch": {},
    }


def siblings(workload: Item, port: int, world: Item) -> Item:
    """The replicas of a proxy's own workload, by whose zones Envoy knows how much its zone can take."""
    return {
        **_PLAIN,
        "name": workload["name"],
        "protocol": "tcp",
        "discovery": "eds",
        "lb_policy": "round_robin",
        "connect_timeout": CONNECT_TIMEOUT,
        "port": port,
        "endpoints": _replicas(workload["name"], port, world),
        "envoy_patch": {},
    }


def resolvers(mesh: Item) -> Item:
    """How names of the mesh are asked for: on the local engine, of the only DNS server that knows them."""
    dns: Item = mesh["dns"]
    if mesh["engine"] != "local":
        return dns
    return {**dns, "resolvers": [{"address": dns_address(mesh["name"]), "port": DNS_PORT}]}


def health_check(settings: Item | None, protocol: str) -> Item | None:
    """A health check with its type; by default what the protocol suggests."""
    return settings and {
        **settings,
        "type": settings["type"] or {"http2": "http", "tls": "tcp"}.get(protocol, protocol),
    }


def patch(settings: Item | None, level: str) -> Item:
    patches = (settings or {}).get("envoy_patch") or {}
    return patches.get(level) or {}


def _first(own: Any, other: Any) -> Any:
    return other if own is None else own


def _outliers(settings: Any, idempotent: bool) -> Item | None:
    if settings is None:
        return IDEMPOTENT_OUTLIERS if idempotent else None
    return settings or None


def _limits(settings: Item | None, callee: Item) -> Item | None:
    limits = settings or NO_LIMITS
    if not services.is_http(callee) or limits["max_retries"] or limits["retry_budget"]:
        return settings
    return {**limits, "retry_budget": RETRY_BUDGET}


def _tls(callee: Item, mesh: Item) -> Item | None:
    settings = callee["tls"]
    if not settings:
        return None
    return {
        "server_name": settings["server_name"] or callee["host"],
        "ca_file": settings["ca_file"] or mesh["ca_file"],
        "client_certificate": settings["client_certificate"],
        "alpn": {"http": ["http/1.1"], "http2": ["h2"], "grpc": ["h2"]}.get(callee["protocol"], []),
    }


def _endpoints(callee: Item, world: Item) -> list[Item]:
    if callee["endpoints"]:
        return [{**endpoint, "port": endpoint["port"] or callee["port"]} for endpoint in callee["endpoints"]]
    return _replicas(callee["name"], services.port(callee), world)


def _replicas(workload: str, port: int, world: Item) -> list[Item]:
    return [
        {"address": replica["address"], "port": port, "zone": replica["zone"]}
        for replica in world["replicas"].get(workload, [])
        if replica["name"] not in world["resting"]
    ]
