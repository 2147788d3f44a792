# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What kind of service an entry of the inventory is, by which names it is called, and what a front proxy calls."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import PATHS
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import HTTP_PROTOCOLS

Item = dict[str, Any]


def runs_here(service: Item) -> bool:
    """Whether the mesh runs it; else it runs elsewhere, or is a name for its versions."""
    return not (service["endpoints"] or service["host"] or service["versions"])


def has_sidecar(service: Item) -> bool:
    return bool(service["sidecar"]) and runs_here(service)


def is_http(item: Item) -> bool:
    """Whether a service or listener speaks HTTP, which has routes and headers."""
    return item["protocol"] in HTTP_PROTOCOLS


def port(service: Item) -> int:
    """The port on which callers reach it: its sidecar's, or its own where it has none."""
    found: int = service["sidecar"]["port"] if has_sidecar(service) else service["port"]
    return found


def answering(service: Item, known: dict[str, Item]) -> list[Item]:
    """The services that answer for one: its versions, as far as they are known, or itself."""
    if not service["versions"]:
        return [service]
    return [known[name] for version in service["versions"] if known.get(name := version["service"]) is not None]


def server_names(service: Item, mesh: Item) -> list[str]:
    """Names under which clients ask for a service of protocol tls."""
    if service["server_names"]:
        return list(service["server_names"])
    return [service["host"]] if service["host"] else called_names(service["name"], mesh)


def called_names(name: str, mesh: Item) -> list[str]:
    """Host names by which an application may call a service, shortest first."""
    return names.hosts(name, mesh["namespace"], mesh["domain"])


def upstream_hosts(upstream: Item, callee: Item, mesh: Item) -> tuple[str, ...]:
    """Host names that select an upstream on the shared egress listener."""
    match = upstream["match"]
    if match and match["hosts"]:
        return tuple(match["hosts"])
    if match and any(match[key] for key in (*PATHS, "headers")):
        return ("*",)
    return (callee["host"],) if callee["host"] else tuple(called_names(callee["name"], mesh))


def front_routes(front: Item) -> list[Item]:
    return [route for host in front["virtual_hosts"] for route in host["routes"]] + list(front["routes"])


def front_services(front: Item) -> list[str]:
    """Services a front proxy calls, each once, in the order of their first mention."""
    found = [route["service"] for route in front_routes(front)]
    for listener in front["listeners"]:
        found += [*([listener["service"]] if listener["service"] else []), *(listener["services"] or [])]
    return list(dict.fromkeys(found))


def exposed_as(front: Item) -> str:
    """Type of the Service of a front proxy."""
    expose = front["expose"]
    found: str = expose["type"] or ("ClusterIP" if expose["host_ports"] else "LoadBalancer")
    return found
