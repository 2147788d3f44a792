# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with a front proxy: its listeners, routes and hosts. Checks yield text, nobody raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import references_edges as edges
from ansible_collections.sidecar.mesh.plugins.module_utils import references_parts as parts
from ansible_collections.sidecar.mesh.plugins.module_utils import services as kinds
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import SERVICE_POLICY

Item = dict[str, Any]
Known = dict[str, Any]


def front_proxy(path: str, front: Item, known: Known, mesh: Item) -> Iterator[str]:
    listeners = front["listeners"]
    if not listeners:
        yield f"{path}.listeners: is empty; give at least one, such as {{port: 80}}"
    yield from parts.one_owner(path, _ports(front))
    for index, listener in enumerate(listeners):
        yield from _listener(f"{path}.listeners[{index}]", listener, known, mesh)
    yield from _routes(path, front, known)
    yield from parts.repeated(f"{path}.upstreams", [item["service"] for item in front["upstreams"]], ".service")
    called = dict.fromkeys(kinds.front_services(front))
    for index, upstream in enumerate(front["upstreams"]):
        yield from _upstream(f"{path}.upstreams[{index}]", upstream, called, front, known, mesh)
    yield from _zones(path, front, known, mesh)


def front_ports(front_proxies: list[Item]) -> Iterator[str]:
    """On the local engine the first replica of every front listens on localhost."""
    owners: dict[int, tuple[int, str]] = {}
    for index, front in enumerate(front_proxies):
        for position, listener in enumerate(front.get("listeners", [])):
            path = f"mesh_front_proxies[{index}].listeners[{position}].port"
            owner, place = owners.setdefault(listener["port"], (index, path))
            if owner != index:
                yield f"{path}: {listener['port']} is already {place}, and both are on localhost"


def _ports(front: Item) -> Iterator[tuple[str, int]]:
    for index, listener in enumerate(front["listeners"]):
        yield f"listeners[{index}].port", listener["port"]
    yield "admin_port", front["admin_port"]
    if front["metrics"]:
        yield "metrics.port", front["metrics"]["port"]


def _listener(path: str, listener: Item, known: Known, mesh: Item) -> Iterator[str]:
    protocol = listener["protocol"]
    if protocol == "tcp" and not listener["service"]:
        yield f"{path}.service: is missing; a tcp listener passes everything to one service"
    if listener["service"]:
        yield from parts.known_service(path, listener["service"], known)
    if protocol == "tls":
        yield from _tls_services(path, listener, known, mesh)
    takes = {"http": "routes", "tcp": "service", "tls": "services"}
    for key, owner in (("service", "tcp"), ("services", "tls")):
        if listener[key] and protocol != owner:
            yield f"{path}.{key}: is for {owner} listeners; a listener of protocol {protocol} takes {takes[protocol]}"
    yield from _listener_options(path, listener)


def _listener_options(path: str, listener: Item) -> Iterator[str]:
    protocol = listener["protocol"]
    if protocol != "http":
        for key in ("https_redirect", "rate_limit"):
            if listener[key]:
                yield f"{path}.{key}: has no meaning for {protocol}; remove it"
        yield from parts.idle_patches(path, listener, {"http_connection_manager": f"{protocol} has none"})
    if listener["tls"] and listener["https_redirect"]:
        yield f"{path}.https_redirect: is already on TLS; redirect from a listener without tls"
    if listener["tls"] and protocol == "tls":
        yield f"{path}.tls: protocol tls is passed on as it is; remove it, or give protocol http or tcp"


def _tls_services(path: str, listener: Item, known: Known, mesh: Item) -> Iterator[str]:
    if not listener["services"]:
        yield f"{path}.services: is missing; give the services of protocol tls that clients may ask for"
    yield from parts.repeated(f"{path}.services", listener["services"] or [])
    owners: dict[str, str] = {}
    for index, name in enumerate(listener["services"] or []):
        yield from parts.known_service(path, name, known, f"services[{index}]")
        callee = known.get(name)
        if callee is None:
            continue
        if callee["protocol"] != "tls":
            yield f"{path}.services[{index}]: {name!r} has protocol {callee['protocol']}; a tls listener needs tls"
            continue
        for server_name in kinds.server_names(callee, mesh):
            owner = owners.setdefault(server_name, name)
            if owner != name:
                yield f"{path}.services[{index}]: the server name {server_name!r} is already that of {owner!r}"


def _routes(path: str, front: Item, known: Known) -> Iterator[str]:
    http = any(listener["protocol"] == "http" for listener in front["listeners"])
    lists = [(f"{path}.routes", front["routes"])]
    lists += [(f"{path}.virtual_hosts[{i}].routes", host["routes"]) for i, host in enumerate(front["virtual_hosts"])]
    if http and not any(routes for _rest, routes in lists):
        yield f"{path}.routes: is empty; give at least one, such as {{prefix: /, service: {next(iter(known), 'name')}}}"
    yield from _domains(path, front)
    yield from parts.repeated(f"{path}.virtual_hosts", [host["name"] for host in front["virtual_hosts"]], ".name")
    own = {upstream["service"]: upstream for upstream in front["upstreams"]}
    for routes_path, routes in lists:
        yield from parts.reachable(routes_path, routes)
        for index, route in enumerate(routes):
            yield from _route(f"{routes_path}[{index}]", route, own.get(route["service"]), known)


def _route(path: str, route: Item, own: Item | None, known: Known) -> Iterator[str]:
    yield from parts.known_service(path, route["service"], known)
    callee = known.get(route["service"])
    if callee is None:
        return
    if not kinds.is_http(callee):
        protocol = callee["protocol"]
        yield f"{path}.service: {callee['name']!r} has protocol {protocol}; give it a {protocol} listener, not a route"
        return
    idempotent = route["idempotent"] if route["idempotent"] is not None else own and own["idempotent"]
    yield from edges.policy(path, {**route, "idempotent": idempotent}, callee, known)


def _domains(path: str, front: Item) -> Iterator[str]:
    """Envoy compares host names without regard to case."""
    owners = {"*": f"{path}.routes"} if front["routes"] else {}
    for index, host in enumerate(front["virtual_hosts"]):
        domains = f"{path}.virtual_hosts[{index}].domains"
        if not host["domains"]:
            yield f"{domains}: is empty; give at least one, such as shop.example.com, or '*' for any"
        for position, domain in enumerate(host["domains"]):
            if domain.lower() in owners:
                yield f"{domains}[{position}]: {domain!r} is already in {owners[domain.lower()]}; a host has one owner"
            owners.setdefault(domain.lower(), f"{domains}[{position}]")


def _upstream(
    path: str, upstream: Item, called: dict[str, None], front: Item, known: Known, mesh: Item
) -> Iterator[str]:
    name = upstream["service"]
    yield from parts.known_service(path, name, known)
    if name in known and name not in called:
        yield from _version(path, upstream, called, known)
    callee = known.get(name)
    if callee is None:
        return
    yield from edges.policy(path, upstream, callee, known)
    for target in kinds.answering(callee, known):
        yield from edges.edge(path, upstream, target, front, mesh)


def _version(path: str, upstream: Item, called: dict[str, None], known: Known) -> Iterator[str]:
    """A service that no route names may be a version of one; what requests are told is then said of that one."""
    name = upstream["service"]
    callees = [known[other] for other in called if known.get(other) is not None]
    owner = next((callee for callee in callees if name in [item["service"] for item in callee["versions"] or []]), None)
    if owner is None:
        yield f"{path}.service: {name!r} is in no route and no listener of this front proxy; remove the entry"
        return
    for key in SERVICE_POLICY:
        if upstream[key] is not None:
            yield f"{path}.{key}: has no effect; requests reach {name!r} through {owner['name']!r}; give it there"


def _zones(path: str, front: Item, known: Known, mesh: Item) -> Iterator[str]:
    """A service that asks for zones asks every caller for them."""
    told = {upstream["service"] for upstream in front["upstreams"] if upstream["zone_aware"] is not None}
    for name in kinds.front_services(front):
        callee = known.get(name)
        if callee is None or name in told or mesh["engine"] != "local":
            continue
        for target in kinds.answering(callee, known):
            if target["zone_aware"] and not front["zones"]:
                yield f"{path}.zones: is missing; {target['name']!r} is zone_aware, which takes the zones of callers"
