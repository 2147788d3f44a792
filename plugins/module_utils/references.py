# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong between the parts of an inventory: references, ports, protocols. Checks yield text, nobody raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import references_edges as edges
from ansible_collections.sidecar.mesh.plugins.module_utils import references_kubernetes as kubernetes
from ansible_collections.sidecar.mesh.plugins.module_utils import references_parts as parts
from ansible_collections.sidecar.mesh.plugins.module_utils import services as kinds
from ansible_collections.sidecar.mesh.plugins.module_utils.check import words
from ansible_collections.sidecar.mesh.plugins.module_utils.references_front import front_ports, front_proxy
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import SERVICE
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import EDGE

Item = dict[str, Any]
Known = dict[str, Any]


def reference_problems(services: list[Item], front_proxies: list[Item], mesh: Item, deployed: bool) -> Iterator[str]:
    """Every mistake that a look at one value alone does not show. ``deployed``: image or command is needed too.

    Of an item that is ``broken`` nothing but the name is known.
    """
    known = {service["name"]: None if "broken" in service else service for service in services if service["name"]}
    on_kubernetes = deployed and mesh["engine"] == "kubernetes"
    yield from _same_names(services, front_proxies)
    for index, service in enumerate(services):
        path = f"mesh_services[{index}]"
        if "broken" in service:
            continue
        if deployed:
            yield from _deployment(path, service, mesh["engine"])
        yield from _service(path, service, known, mesh)
        yield from kubernetes.service(path, service, mesh, on_kubernetes)
    for index, front in enumerate(front_proxies):
        if "broken" not in front:
            path = f"mesh_front_proxies[{index}]"
            yield from front_proxy(path, front, known, mesh)
            yield from kubernetes.front_proxy(path, front, mesh, on_kubernetes)
    yield from kubernetes.policies(mesh)
    if mesh["engine"] == "local":
        yield from front_ports(front_proxies)


def _same_names(services: list[Item], front_proxies: list[Item]) -> Iterator[str]:
    paths: dict[str, list[str]] = {}
    for section, items in (("mesh_services", services), ("mesh_front_proxies", front_proxies)):
        for index, item in enumerate(items):
            if item["name"]:
                paths.setdefault(item["name"], []).append(f"{section}[{index}].name")
    for name, places in paths.items():
        if len(places) > 1:
            yield f"{places[-1]}: {name!r} is taken by {words(places[:-1])}; names are unique in a mesh"


def _deployment(path: str, service: Item, engine: str) -> Iterator[str]:
    needed, instead = {"kubernetes": ("image", "build, "), "local": ("command", "")}[engine]
    if not service[needed] and not (instead and service["build"]) and kinds.runs_here(service):
        yield (
            f"{path}.{needed}: is missing; mesh_engine {engine} runs {service['name']!r} from it "
            f"(or give {instead}endpoints or host, if it runs elsewhere)"
        )


def _service(path: str, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    yield from _elsewhere(path, service)
    yield from _names_asked_for(path, service)
    yield from parts.idle_patches(path, service, _idle_patches(service))
    if service["versions"]:
        yield from _versions(path, service, known)
    else:
        yield from edges.edge(path, service, service, service, mesh)
    if service["sticky"] and not service["versions"]:
        yield f"{path}.sticky: has no use without versions; remove it, or see lb_policy and hash_on"
    if service["mirror"]:
        yield from _http_only(path, "mirror", service)
        yield from edges.mirror(f"{path}.mirror", service["mirror"], service, known)
    if service["websocket"] and service["protocol"] != "http":
        yield f"{path}.websocket: needs protocol http, and it is {service['protocol']}"
    if not kinds.has_sidecar(service):
        if service["upstreams"] and kinds.runs_here(service):
            yield f"{path}.upstreams: need a sidecar; remove sidecar: false, or the upstreams"
        return
    yield from _sidecar(path, service, known, mesh)


def _sidecar(path: str, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    tls_ports = _tls_ports(service, known)
    yield from parts.one_owner(path, _sidecar_ports(service, tls_ports))
    yield from _server_names(path, service, tls_ports, known, mesh)
    if kinds.is_http(service):
        yield from parts.reachable(f"{path}.sidecar.routes", service["sidecar"]["routes"])
        for index, route in enumerate(service["sidecar"]["routes"]):
            yield from edges.passing(f"{path}.sidecar.routes[{index}]", route, service)
    elif service["sidecar"]["rate_limit"]:
        yield f"{path}.sidecar.rate_limit: {service['protocol']} has no requests; give max_connections"
    yield from parts.repeated(f"{path}.upstreams", [item["service"] for item in service["upstreams"]], ".service")
    yield from _shared_hosts(path, service, known, mesh)
    for index, upstream in enumerate(service["upstreams"]):
        yield from _upstream(f"{path}.upstreams[{index}]", upstream, service, known, mesh)


def _http_only(path: str, key: str, service: Item) -> Iterator[str]:
    if not kinds.is_http(service):
        yield f"{path}.{key}: has no meaning for {service['protocol']}; remove it"


def _idle_patches(service: Item) -> dict[str, str]:
    levels = ("cluster", "listener", "http_connection_manager", "virtual_host", "bootstrap")
    if not kinds.runs_here(service):
        kind = next(key for key in ("endpoints", "host", "versions") if service[key])
        return dict.fromkeys(levels, f"a service that does not run here ({kind}) has no sidecar here")
    if not service["sidecar"]:
        return dict.fromkeys(levels, "the service has no sidecar")
    if kinds.is_http(service):
        return {}
    return dict.fromkeys(("http_connection_manager", "virtual_host"), f"{service['protocol']} has none")


def _elsewhere(path: str, service: Item) -> Iterator[str]:
    given = [key for key in ("endpoints", "host", "versions") if service[key]]
    if len(given) > 1:
        yield f"{path}: has {words(given)}; a service has at most one of them"
    if given and service["upstreams"]:
        yield f"{path}.upstreams: a service that does not run here ({given[0]}) has none; remove one of the two"
    if not service["tls"]:
        return
    if not service["endpoints"] and not service["host"]:
        yield f"{path}.tls: is for a service that runs elsewhere; give host or endpoints, or remove it"
    elif service["protocol"] == "tls":
        yield f"{path}.tls: protocol tls is passed on as it is; remove it, or give the protocol inside"
    elif not service["host"] and not service["tls"]["server_name"]:
        yield f"{path}.tls.server_name: is missing; endpoints have no name to check the certificate by"


def _names_asked_for(path: str, service: Item) -> Iterator[str]:
    if service["server_names"] and service["protocol"] != "tls":
        yield f"{path}.server_names: is for protocol tls, and it is {service['protocol']}"
    if service["protocol"] == "tls" and service["endpoints"] and not service["server_names"]:
        yield f"{path}.server_names: is missing; give the names under which clients ask for it"


def _versions(path: str, service: Item, known: Known) -> Iterator[str]:
    versions = service["versions"]
    yield from parts.repeated(f"{path}.versions", [version["service"] for version in versions], ".service")
    if not any(version["weight"] for version in versions):
        yield f"{path}.versions: no version has a weight; give at least one of them a weight"
    for key in (*EDGE, "websocket"):
        if service[key] not in (None, SERVICE["fields"][key].get("default")):
            yield f"{path}.{key}: has no effect beside versions; give it to the versions"
    for index, version in enumerate(versions):
        where = f"{path}.versions[{index}]"
        yield from parts.known_service(where, version["service"], known)
        yield from parts.header_tests(f"{where}.headers", version["headers"] or [])
        for key in ("headers", "cookie"):
            if version[key]:
                yield from _http_only(where, key, service)
        target = known.get(version["service"])
        if target is not None and target["versions"]:
            yield f"{where}.service: {target['name']!r} has versions itself; name a service that answers"
        elif target is not None and target["protocol"] != service["protocol"]:
            yield (
                f"{where}.service: {target['name']!r} has protocol {target['protocol']}, and {service['name']!r} "
                f"{service['protocol']}; all versions need the same"
            )
    if service["sticky"]:
        yield from _http_only(path, "sticky", service)
        yield from edges.hash_source(f"{path}.sticky", service["sticky"])


def _tls_ports(service: Item, known: Known) -> dict[int, list[int]]:
    """Ports that upstreams of protocol tls may share, with the indexes of these."""
    found: dict[int, list[int]] = {}
    for index, upstream in enumerate(service["upstreams"]):
        callee = known.get(upstream["service"])
        if upstream["port"] and callee is not None and callee["protocol"] == "tls":
            found.setdefault(upstream["port"], []).append(index)
    return found


def _sidecar_ports(service: Item, tls_ports: dict[int, list[int]]) -> Iterator[tuple[str, int]]:
    yield "port", service["port"]
    yield "sidecar.port", service["sidecar"]["port"]
    yield "sidecar.admin_port", service["sidecar"]["admin_port"]
    if service["sidecar"]["metrics"]:
        yield "sidecar.metrics.port", service["sidecar"]["metrics"]["port"]
    for index, upstream in enumerate(service["upstreams"]):
        if upstream["port"] and index not in tls_ports.get(upstream["port"], [])[1:]:
            yield f"upstreams[{index}].port", upstream["port"]
    if any(not upstream["port"] for upstream in service["upstreams"]):
        yield "egress.port", service["egress"]["port"]


def _server_names(path: str, service: Item, tls_ports: dict[int, list[int]], known: Known, mesh: Item) -> Iterator[str]:
    """One port tells its upstreams apart by name only."""
    for indexes in tls_ports.values():
        first = f"{path}.upstreams[{indexes[0]}]"
        for index in indexes[1:]:
            levels = {"listener": f"this port's listener is that of {first}"}
            yield from parts.idle_patches(f"{path}.upstreams[{index}]", service["upstreams"][index], levels)
        owners: dict[str, int] = {}
        for index in indexes:
            for name in kinds.server_names(known[service["upstreams"][index]["service"]], mesh):
                if name in owners:
                    yield (
                        f"{path}.upstreams[{index}].port: the server name {name!r} is already that of "
                        f"{path}.upstreams[{owners[name]}] on this port; give another port"
                    )
                owners.setdefault(name, index)


def _upstream(path: str, upstream: Item, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    yield from parts.known_service(path, upstream["service"], known)
    callee = known.get(upstream["service"])
    if callee is None:
        return
    if callee is service:
        yield f"{path}.service: {service['name']!r} names itself; a service is not its own upstream"
    yield from _egress(path, upstream, service, callee)
    yield from edges.policy(path, upstream, callee, known)
    mirror = upstream["mirror"] or callee["mirror"]
    if mirror and mirror["service"] == service["name"]:
        name = service["name"]
        yield f"{path}.mirror: copies of what {name!r} sends would come back to it; mirror to another service"
    for target in kinds.answering(callee, known):
        if target is service and callee is not service:
            yield f"{path}.service: {service['name']!r} is itself a version of {callee['name']!r}; give another service"
        yield from edges.edge(path, upstream, target, service, mesh)


def _egress(path: str, upstream: Item, service: Item, callee: Item) -> Iterator[str]:
    shared = service["egress"]["mode"] == "shared"
    http = kinds.is_http(callee)
    if not upstream["port"] and not (http and shared):
        remedy = ", or set egress: shared" if http else ""
        yield f"{path}.port: is missing; give the port on which the sidecar listens for {callee['name']!r}{remedy}"
    if upstream["port"] and upstream["match"]:
        yield f"{path}.match: has no use beside port; this upstream has a listener of its own"
    if upstream["match"]:
        yield from parts.match(f"{path}.match", upstream["match"], path_needed=False)
        yield from parts.repeated(f"{path}.match.hosts", upstream["match"]["hosts"] or [])
    if not http:
        levels = ("http_connection_manager", "virtual_host", "route")
        yield from parts.idle_patches(path, upstream, dict.fromkeys(levels, f"{callee['protocol']} has none"))
    elif shared and not upstream["port"]:
        reason = "the upstream has no listener of its own; give it a port, or see egress.envoy_patch"
        yield from parts.idle_patches(path, upstream, dict.fromkeys(("listener", "http_connection_manager"), reason))


def _shared_hosts(path: str, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    """Upstreams on the shared listener: equal host lists are one group, and no host is in two groups."""
    owners: dict[str, tuple[str, ...]] = {}
    earlier: dict[tuple[str, ...], list[tuple[int, Item]]] = {}
    for index, upstream in enumerate(service["upstreams"]):
        callee = known.get(upstream["service"])
        if upstream["port"] or callee is None:
            continue
        group = kinds.upstream_hosts(upstream, callee, mesh)
        for host in group:
            if owners.setdefault(host, group) != group:
                yield (
                    f"{path}.upstreams[{index}].match.hosts: {host!r} is in a different list of another upstream; "
                    "upstreams that share a host list the same hosts"
                )
        before = earlier.setdefault(group, [])
        if before:
            levels = {"virtual_host": f"these hosts are those of {path}.upstreams[{before[0][0]}]"}
            yield from parts.idle_patches(f"{path}.upstreams[{index}]", upstream, levels)
        yield from _hidden(path, index, upstream, before)
        before.append((index, upstream))
    if not owners and service["egress"]["envoy_patch"]:
        yield f"{path}.egress.envoy_patch: has no effect; no upstream uses the shared listener"


def _hidden(path: str, index: int, upstream: Item, earlier: list[tuple[int, Item]]) -> Iterator[str]:
    """Whether an upstream on the shared listener gets no request because of one before it."""
    for position, other in earlier:
        if parts.covers(parts.with_path(other["match"]), parts.with_path(upstream["match"])):
            yield (
                f"{path}.upstreams[{index}]: is never reached; {path}.upstreams[{position}] matches all of it; "
                "put it before that one, or give it a match of its own"
            )
            return
