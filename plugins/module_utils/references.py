# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong between the parts of an inventory: references, ports, protocols. Checks yield text, nobody raises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import words
from ansible_collections.sidecar.mesh.plugins.module_utils.names import hosts as service_hosts
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import HASHING_POLICIES, HEADER_TESTS, PATHS

Item = dict[str, Any]
Known = dict[str, Any]
GRPC_HEALTH = "/grpc.health.v1.Health/Check"
HTTP_ONLY = ("timeout", "retries", "idempotent", "prefix_rewrite", "host_rewrite", "match")


def reference_problems(services: list[Item], front_proxies: list[Item], mesh: Item, deployed: bool) -> Iterator[str]:
    """Every mistake that a look at one value alone does not show. ``deployed``: image or command is needed too.

    Of an item that is ``broken`` nothing but the name is known.
    """
    known = {service["name"]: None if "broken" in service else service for service in services if service["name"]}
    yield from _same_names(services, front_proxies)
    for index, service in enumerate(services):
        path = f"mesh_services[{index}]"
        if "broken" in service:
            continue
        if deployed:
            yield from _deployment(path, service, mesh["engine"])
        yield from _service(path, service, known, mesh)
    for index, front in enumerate(front_proxies):
        if "broken" not in front:
            yield from _front(f"mesh_front_proxies[{index}]", front, known, mesh)
    if mesh["engine"] == "local":
        yield from _front_ports(front_proxies)


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
    needed = {"kubernetes": "image", "local": "command"}[engine]
    if not service[needed] and not service["endpoints"]:
        yield (
            f"{path}.{needed}: is missing; mesh_engine {engine} runs {service['name']!r} from it "
            "(or give endpoints, if it runs elsewhere)"
        )


def _service(path: str, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    yield from _elsewhere(path, service)
    yield from _patches(path, service, _idle_service_patches(service))
    yield from _hashing(path, service, service)
    yield from _health_check(path, service["health_check"], service)
    yield from _discovery(path, service, service, mesh)
    if service["sidecar"] is None:
        if service["upstreams"]:
            yield f"{path}.upstreams: need a sidecar; remove sidecar: false, or the upstreams"
        return
    yield from _ports(path, _sidecar_ports(service))
    yield from _sidecar_routes(path, service)
    yield from _repeated(f"{path}.upstreams", [upstream["service"] for upstream in service["upstreams"]], ".service")
    yield from _shared_hosts(path, service, mesh)
    for index, upstream in enumerate(service["upstreams"]):
        yield from _upstream(f"{path}.upstreams[{index}]", upstream, service, known, mesh)


def _patches(path: str, item: Item, idle: dict[str, str]) -> Iterator[str]:
    """``idle``: the levels of a patch that nothing is generated for, and why."""
    for level, reason in idle.items():
        if (item["envoy_patch"] or {}).get(level):
            yield f"{path}.envoy_patch.{level}: has no effect; {reason}"


def _idle_service_patches(service: Item) -> dict[str, str]:
    levels = ("cluster", "listener", "http_connection_manager", "bootstrap")
    if service["endpoints"]:
        return dict.fromkeys(levels, "a service that runs elsewhere (endpoints) has no sidecar here")
    if service["sidecar"] is None:
        return dict.fromkeys(levels, "the service has no sidecar")
    return {"http_connection_manager": "tcp has none"} if service["protocol"] == "tcp" else {}


def _elsewhere(path: str, service: Item) -> Iterator[str]:
    if service["endpoints"] and service["upstreams"]:
        yield f"{path}.upstreams: a service that runs elsewhere (endpoints) has none here; remove one of the two"


def _sidecar_ports(service: Item) -> Iterator[tuple[str, int]]:
    yield "port", service["port"]
    yield "sidecar.port", service["sidecar"]["port"]
    yield "sidecar.admin_port", service["sidecar"]["admin_port"]
    for index, upstream in enumerate(service["upstreams"]):
        if upstream["port"]:
            yield f"upstreams[{index}].port", upstream["port"]
    if any(not upstream["port"] for upstream in service["upstreams"]):
        yield "egress.port", service["egress"]["port"]


def _ports(path: str, ports: Iterable[tuple[str, int]]) -> Iterator[str]:
    """One address, so one owner a port."""
    owners: dict[int, str] = {}
    for key, port in ports:
        if port in owners:
            yield f"{path}.{key}: {port} is already {path}.{owners[port]}; give another port"
        owners.setdefault(port, key)


def _repeated(path: str, values: list[Any], key: str = "") -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            index = len(values) - 1 - values[::-1].index(value)
            yield f"{path}[{index}]{key}: {value!r} appears {count} times; once is enough"


def _sidecar_routes(path: str, service: Item) -> Iterator[str]:
    if service["protocol"] == "tcp":
        return
    yield from _routes(f"{path}.sidecar.routes", service["sidecar"]["routes"])


def _upstream(path: str, upstream: Item, service: Item, known: Known, mesh: Item) -> Iterator[str]:
    yield from _known_service(path, upstream["service"], known)
    callee = known.get(upstream["service"])
    if callee is None:
        return
    if callee is service:
        yield f"{path}.service: {service['name']!r} names itself; a service is not its own upstream"
    yield from _egress(path, upstream, service, callee)
    yield from _hashing(path, upstream, callee)
    yield from _health_check(path, upstream["health_check"], callee)
    yield from _discovery(path, upstream, callee, mesh)


def _known_service(path: str, name: str, known: Iterable[str]) -> Iterator[str]:
    if name not in known:
        yield f"{path}.service: {name!r} is not in mesh_services (known: {', '.join(sorted(known)) or 'none'})"


def _egress(path: str, upstream: Item, service: Item, callee: Item) -> Iterator[str]:
    shared = service["egress"]["mode"] == "shared"
    tcp = callee["protocol"] == "tcp"
    if not upstream["port"] and (tcp or not shared):
        remedy = "" if tcp else ", or set egress: shared"
        yield f"{path}.port: is missing; give the port on which the sidecar listens for {callee['name']!r}{remedy}"
    if upstream["port"] and upstream["match"]:
        yield f"{path}.match: has no use beside port; this upstream has a listener of its own"
    if tcp:
        for key in HTTP_ONLY:
            if upstream[key] is not None:
                yield f"{path}.{key}: has no meaning for tcp; remove it, or change {callee['name']!r} to protocol http"
    if upstream["match"]:
        yield from _match(f"{path}.match", upstream["match"], path_needed=False)
        yield from _repeated(f"{path}.match.hosts", upstream["match"]["hosts"] or [])
    if tcp:
        yield from _patches(path, upstream, dict.fromkeys(("http_connection_manager", "route"), "tcp has none"))
    elif shared and not upstream["port"]:
        reason = "the upstream has no listener of its own; give it a port"
        yield from _patches(path, upstream, dict.fromkeys(("listener", "http_connection_manager"), reason))


def _hashing(path: str, edge: Item, callee: Item) -> Iterator[str]:
    policy = edge["lb_policy"] or callee["lb_policy"]
    hash_on = edge["hash_on"] or callee["hash_on"]
    if policy in HASHING_POLICIES and not hash_on:
        yield f"{path}.hash_on: is missing; {policy} needs a header, cookie or source_ip to hash"
    if edge["hash_on"] and sum(bool(value) for value in edge["hash_on"].values()) != 1:
        yield f"{path}.hash_on: give exactly one of header, cookie or source_ip"
    if hash_on and not hash_on["source_ip"] and callee["protocol"] == "tcp":
        yield f"{path}.hash_on: tcp has no headers; give source_ip: true"


def _health_check(path: str, health_check: Item | None, callee: Item) -> Iterator[str]:
    kind = health_check and health_check["type"]
    protocol = callee["protocol"]
    if kind == "grpc" and protocol not in ("grpc", "http2"):
        yield f"{path}.health_check.type: 'grpc' needs protocol grpc or http2, and {callee['name']!r} has {protocol}"
    if kind == "http" and protocol == "tcp":
        yield f"{path}.health_check.type: 'http' needs an HTTP protocol, and {callee['name']!r} has tcp; give tcp"
    if health_check and callee["sidecar"] and not callee["endpoints"] and protocol != "tcp":
        yield from _health_check_passes(path, health_check, callee)


def _health_check_passes(path: str, health_check: Item, callee: Item) -> Iterator[str]:
    """Callers ask through the sidecar; where it refuses the question, every replica is unhealthy for ever."""
    kind = health_check["type"] or callee["protocol"]
    asked = GRPC_HEALTH if kind == "grpc" else health_check["path"].partition("?")[0]
    if kind != "tcp" and not any(_lets_pass(route, asked) for route in callee["sidecar"]["routes"]):
        yield (
            f"{path}.health_check: asks for {asked}, which the sidecar of {callee['name']!r} does not let pass; "
            f"add {{path: {asked}}} to its sidecar.routes"
        )


def _lets_pass(route: Item, asked: str) -> bool:
    """What a regular expression matches only Envoy knows."""
    if route["headers"]:
        return False
    if route["prefix"] is not None:
        return asked.startswith(route["prefix"])
    if route["path"] is not None:
        return bool(asked == route["path"])
    return route["grpc"] is None or f"{asked}/".startswith(f"/{route['grpc']}/")


def _discovery(path: str, edge: Item, callee: Item, mesh: Item) -> Iterator[str]:
    if edge["discovery"] == "dns" and callee["endpoints"]:
        yield f"{path}.discovery: 'dns' has no use for endpoints; give static or eds, or remove the endpoints"
    if edge["discovery"] in ("static", "eds") and not callee["endpoints"] and mesh["engine"] == "kubernetes":
        yield (
            f"{path}.discovery: {edge['discovery']!r} needs endpoints of {callee['name']!r} on engine kubernetes; "
            "list them, or use dns"
        )


def _shared_hosts(path: str, service: Item, mesh: Item) -> Iterator[str]:
    """Upstreams on the shared listener: equal host lists are one group, and no host is in two groups."""
    owners: dict[str, tuple[str, ...]] = {}
    earlier: dict[tuple[str, ...], list[tuple[int, Item]]] = {}
    for index, upstream in enumerate(service["upstreams"]):
        if upstream["port"]:
            continue
        group = upstream_hosts(upstream, mesh)
        for host in group:
            if owners.setdefault(host, group) != group:
                yield (
                    f"{path}.upstreams[{index}].match.hosts: {host!r} is in a different list of another upstream; "
                    "upstreams that share a host list the same hosts"
                )
        yield from _hidden(path, index, upstream, earlier.setdefault(group, []))
        earlier[group].append((index, upstream))


def _hidden(path: str, index: int, upstream: Item, earlier: list[tuple[int, Item]]) -> Iterator[str]:
    """Whether an upstream on the shared listener gets no request because of one before it."""
    for position, other in earlier:
        if _covers(_with_path(other["match"]), _with_path(upstream["match"])):
            yield (
                f"{path}.upstreams[{index}]: is never reached; {path}.upstreams[{position}] matches all of it; "
                "put it before that one, or give it a match of its own"
            )
            return


def upstream_hosts(upstream: Item, mesh: Item) -> tuple[str, ...]:
    """Host names that select an upstream on the shared egress listener."""
    match = upstream["match"]
    if match and match["hosts"]:
        return tuple(match["hosts"])
    if match and any(match[key] for key in (*PATHS, "headers")):
        return ("*",)
    return tuple(service_hosts(upstream["service"], mesh["namespace"], mesh["domain"]))


def _with_path(match: Item | None) -> Item:
    """A match that names no path is one of any path."""
    match = match or dict.fromkeys((*PATHS, "headers"))
    return match if any(match[key] is not None for key in PATHS) else {**match, "prefix": "/"}


def _front(path: str, front: Item, known: Known, mesh: Item) -> Iterator[str]:
    listeners = front["listeners"]
    if not listeners:
        yield f"{path}.listeners: is empty; give at least one, such as {{port: 80}}"
    ports = [(f"listeners[{index}].port", listener["port"]) for index, listener in enumerate(listeners)]
    yield from _ports(path, [*ports, ("admin_port", front["admin_port"])])
    for index, listener in enumerate(listeners):
        yield from _front_listener(f"{path}.listeners[{index}]", listener, known)
    yield from _front_routes(path, front, known)
    yield from _repeated(f"{path}.upstreams", [upstream["service"] for upstream in front["upstreams"]], ".service")
    called = set(front_services(front))
    for index, upstream in enumerate(front["upstreams"]):
        yield from _front_upstream(f"{path}.upstreams[{index}]", upstream, called, known, mesh)


def _front_upstream(path: str, upstream: Item, called: set[str], known: Known, mesh: Item) -> Iterator[str]:
    name = upstream["service"]
    yield from _known_service(path, name, known)
    if name in known and name not in called:
        yield f"{path}.service: {name!r} is in no route and no listener of this front proxy; remove the entry"
    callee = known.get(name)
    if callee is not None:
        yield from _hashing(path, upstream, callee)
        yield from _health_check(path, upstream["health_check"], callee)
        yield from _discovery(path, upstream, callee, mesh)


def front_services(front: Item) -> list[str]:
    """Services a front proxy calls, each once, in the order of their first mention."""
    routes = [route for host in front["virtual_hosts"] for route in host["routes"]] + front["routes"]
    listeners = [listener for listener in front["listeners"] if listener["service"]]
    return list(dict.fromkeys(item["service"] for item in [*routes, *listeners]))


def _front_listener(path: str, listener: Item, known: Known) -> Iterator[str]:
    tcp = listener["protocol"] == "tcp"
    if tcp and not listener["service"]:
        yield f"{path}.service: is missing; a tcp listener passes everything to one service"
    if listener["service"]:
        yield from _known_service(path, listener["service"], known)
    if listener["service"] and not tcp:
        yield f"{path}.service: is for tcp listeners; an http listener takes routes"
    if tcp and listener["https_redirect"]:
        yield f"{path}.https_redirect: has no meaning for tcp; remove it"
    if listener["tls"] and listener["https_redirect"]:
        yield f"{path}.https_redirect: is already on TLS; redirect from a listener without tls"
    if tcp:
        yield from _patches(path, listener, {"http_connection_manager": "tcp has none"})


def _front_routes(path: str, front: Item, known: Known) -> Iterator[str]:
    http = any(listener["protocol"] == "http" for listener in front["listeners"])
    lists = [(f"{path}.routes", front["routes"])]
    lists += [(f"{path}.virtual_hosts[{i}].routes", host["routes"]) for i, host in enumerate(front["virtual_hosts"])]
    if http and not any(routes for _rest, routes in lists):
        yield f"{path}.routes: is empty; give at least one, such as {{prefix: /, service: {next(iter(known), 'name')}}}"
    yield from _domains(path, front)
    yield from _repeated(f"{path}.virtual_hosts", [host["name"] for host in front["virtual_hosts"]], ".name")
    for routes_path, routes in lists:
        yield from _routes(routes_path, routes)
        for index, route in enumerate(routes):
            yield from _route_service(f"{routes_path}[{index}]", route, known)


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


def _route_service(path: str, route: Item, known: Known) -> Iterator[str]:
    yield from _known_service(path, route["service"], known)
    callee = known.get(route["service"])
    if callee is not None and callee["protocol"] == "tcp":
        yield f"{path}.service: {callee['name']!r} has protocol tcp; give it a tcp listener, not a route"


def _routes(path: str, routes: list[Item]) -> Iterator[str]:
    earlier: dict[tuple[str, str], list[int]] = {}
    for index, route in enumerate(routes):
        yield from _match(f"{path}[{index}]", route, path_needed=True)
        near = sorted(position for place in _covering_places(route) for position in earlier.get(place, ()))
        for position in near:
            if _covers(routes[position], route):
                yield f"{path}[{index}]: is never reached; {path}[{position}] matches all of it; put it before that one"
                break
        for place in _places(route):
            earlier.setdefault(place, []).append(index)


def _match(path: str, match: Item, path_needed: bool) -> Iterator[str]:
    given = [key for key in PATHS if match[key] is not None]
    if len(given) > 1 or (path_needed and not given):
        yield f"{path}: has {words(given) if given else 'no path'}; give exactly one of {words(PATHS)}"
    for index, header in enumerate(match["headers"] or []):
        tests = [key for key in HEADER_TESTS if header[key] is not None]
        if len(tests) != 1:
            found = words(tests) if tests else "no test"
            yield f"{path}.headers[{index}]: has {found}; give exactly one of {words(HEADER_TESTS)}"


def _places(match: Item) -> Iterator[tuple[str, str]]:
    """Where a match is found again without a look at all others, which would take long for thousands."""
    return ((key, match[key]) for key in PATHS if match[key] is not None)


def _covering_places(match: Item) -> Iterator[tuple[str, str]]:
    """Where a match that covers this one can be: one of the same path, or of a prefix of it."""
    text = f"/{match['grpc']}/" if match["grpc"] else match["prefix"] or match["path"] or ""
    prefixes = {"/", *(text[:length] for length in range(len(text) + 1))}
    return chain(
        (place for place in _places(match) if place[0] != "prefix"), (("prefix", prefix) for prefix in prefixes)
    )


def _covers(earlier: Item, later: Item) -> bool:
    """Whether every request of the later route already matches the earlier one."""
    if earlier["headers"]:
        return False
    if earlier["prefix"] is None:
        return any(earlier[key] is not None and earlier[key] == later[key] for key in PATHS)
    if later["grpc"]:
        return f"/{later['grpc']}/".startswith(earlier["prefix"])
    return bool((later["prefix"] or later["path"] or "").startswith(earlier["prefix"]) or earlier["prefix"] == "/")


def _front_ports(front_proxies: list[Item]) -> Iterator[str]:
    """On the local engine the first replica of every front listens on localhost."""
    owners: dict[int, tuple[int, str]] = {}
    for index, front in enumerate(front_proxies):
        for position, listener in enumerate(front.get("listeners", [])):
            path = f"mesh_front_proxies[{index}].listeners[{position}].port"
            owner, place = owners.setdefault(listener["port"], (index, path))
            if owner != index:
                yield f"{path}: {listener['port']} is already {place}, and both are on localhost"
