# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a proxy listens: its listeners with every setting decided.

A listener is plain data and all the builder of listeners needs:

* ``name``, ``direction`` (ingress, egress, front, metrics), ``address``, ``port``, ``protocol`` (http, tcp, tls)
* ``virtual_hosts`` of http (name, domains, routes, patch); ``chains`` of tcp and tls (server_names, clusters, hash_on,
  connects)
* ``http``, ``health_path``, ``access_log``, ``rate_limit``, ``max_connections``, ``tls``, ``https_redirect``
* ``listener_patch``, ``http_patch``
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, requests, services
from ansible_collections.sidecar.mesh.plugins.module_utils.edges import patch
from ansible_collections.sidecar.mesh.plugins.module_utils.local import LOCALHOST

Item = dict[str, Any]

ANY_HOST = ("*",)
REQUEST_TIMEOUT = "300s"


def ingress(service: Item, place: Item) -> Item:
    """Where callers reach a service, through its sidecar."""
    settings = service["sidecar"]
    cluster = names.APPLICATION_CLUSTER
    common = {**_told(settings, strict=False), "max_connections": settings["max_connections"]}
    base = _listener("ingress", settings["port"], place["addresses"]["listen"], service, **common)
    if services.is_http(service):
        routes = requests.ingress_routes(service, cluster)
        host = virtual_host("ingress", ANY_HOST, routes, service)
        return {**base, "virtual_hosts": [host], "rate_limit": settings["rate_limit"]}
    # The callers' own limits hold here too.
    connects = {"connect_attempts": 1, "idle_timeout": requests.NO_LIMIT}
    return {**base, "protocol": "tcp", "chains": [_chain([], [{"name": cluster, "weight": 1}], None, connects)]}


def egress(service: Item, place: Item, world: Item) -> list[Item]:
    """Where an application reaches its upstreams: one listener a port, and one for all that have none."""
    ported: dict[int, list[Item]] = {}
    shared = []
    for upstream in service["upstreams"]:
        if upstream["port"]:
            ported.setdefault(upstream["port"], []).append(upstream)
        else:
            shared.append(upstream)
    own = [_upstreams_listener(port, upstreams, service, place, world) for port, upstreams in ported.items()]
    return own + ([_shared_listener(shared, service, place, world)] if shared else [])


def _upstreams_listener(port: int, upstreams: list[Item], service: Item, place: Item, world: Item) -> Item:
    """The listener of one upstream, or of several of protocol tls, which are told apart by server names."""
    callees = [world["services"][upstream["service"]] for upstream in upstreams]
    settings = {"protocol": callees[0]["protocol"], "envoy_patch": upstreams[0]["envoy_patch"]}
    common = {**_told(service["sidecar"], strict=False), "health_path": None}
    base = _listener("egress", port, place["addresses"]["egress"], settings, **common)
    if services.is_http(callees[0]):
        (upstream,), (callee,) = upstreams, callees
        routes = _upstream_routes(upstream, callee, world)
        return {**base, "virtual_hosts": [virtual_host(callee["name"], ANY_HOST, routes, upstream)]}
    chains = [
        _chain(
            services.server_names(callee, world["mesh"]) if base["protocol"] == "tls" else [],
            requests.shares(callee),
            requests.hash_on(callee, upstream, world),
            requests.connects([upstream]),
        )
        for upstream, callee in zip(upstreams, callees, strict=True)
    ]
    return {**base, "chains": chains}


def _shared_listener(upstreams: list[Item], service: Item, place: Item, world: Item) -> Item:
    """The listener that finds the upstream by host, path or headers, and lets pass nothing else."""
    groups: dict[tuple[str, ...], list[Item]] = {}
    for upstream in upstreams:
        callee = world["services"][upstream["service"]]
        groups.setdefault(services.upstream_hosts(upstream, callee, world["mesh"]), []).append(upstream)
    hosts = []
    for domains, group in groups.items():
        routes = [
            route
            for upstream in group
            for route in _upstream_routes(upstream, world["services"][upstream["service"]], world)
        ]
        hosts.append(virtual_host(group[0]["service"], domains, routes, group[0]))
    if not any("*" in domains for domains in groups):
        refusal = (
            f"sidecar.mesh: no upstream of {service['name']} has this host; name it in upstreams of mesh_services.\n"
        )
        hosts.append(virtual_host("no_upstream", ANY_HOST, [requests.answer(403, refusal)], None))
    settings = {"protocol": "http", "envoy_patch": service["egress"]["envoy_patch"]}
    common = {**_told(service["sidecar"], strict=False), "health_path": None}
    base = _listener("egress", service["egress"]["port"], place["addresses"]["egress"], settings, **common)
    return {**base, "virtual_hosts": hosts}


def _upstream_routes(upstream: Item, callee: Item, world: Item) -> list[Item]:
    asked = requests.match(upstream["match"]) if upstream["match"] else requests.EVERYTHING
    return requests.routes(asked, callee, upstream, upstream, world)


def front_hosts(front: Item, own: dict[str, Item], world: Item) -> list[Item]:
    """The virtual hosts of a front proxy, which its listeners share."""

    def routes(items: list[Item]) -> list[Item]:
        return [
            route
            for item in items
            for route in requests.routes(
                requests.match(item), world["services"][item["service"]], item, own.get(item["service"]), world
            )
        ]

    hosts = [
        virtual_host(host["name"], tuple(host["domains"]), routes(host["routes"]), host)
        for host in front["virtual_hosts"]
    ]
    return hosts + ([virtual_host("default", ANY_HOST, routes(front["routes"]), None)] if front["routes"] else [])


def front_listener(listener: Item, front: Item, place: Item, hosts: list[Item], own: Item, world: Item) -> Item:
    """Where clients reach a front proxy."""
    # On the local engine users find the first replica on localhost.
    address = LOCALHOST if place["index"] == 1 else place["addresses"]["listen"]
    common = _told(front, strict=True, streams=_streams(hosts))
    built = {
        **_listener("front", listener["port"], address, listener, **common),
        "tls": listener["tls"] and listener["tls"]["secret"],
        "https_redirect": listener["https_redirect"],
        "rate_limit": listener["rate_limit"],
        "max_connections": listener["max_connections"],
    }
    if built["protocol"] == "http":
        return {**built, "virtual_hosts": hosts}
    chains = []
    for name in listener["services"] or [listener["service"]]:
        callee, settings = world["services"][name], own.get(name)
        wanted = services.server_names(callee, world["mesh"]) if built["protocol"] == "tls" else []
        connects = requests.connects([settings])
        chains.append(_chain(wanted, requests.shares(callee), requests.hash_on(callee, settings, world), connects))
    return {**built, "chains": chains}


def metrics(envoy: Item, place: Item) -> list[Item]:
    """Where Prometheus reads a proxy's statistics, and nobody changes anything."""
    if not envoy["metrics"]:
        return []
    settings = {"protocol": "http", "envoy_patch": None}
    told = {**_told(envoy, strict=False), "health_path": None, "access_log": {**envoy["access_log"], "format": "none"}}
    return [_listener("metrics", envoy["metrics"]["port"], place["addresses"]["listen"], settings, **told)]


def virtual_host(name: str, domains: tuple[str, ...], routes: list[Item], settings: Item | None) -> Item:
    return {"name": name, "domains": list(domains), "routes": routes, "patch": patch(settings, "virtual_host")}


def _listener(direction: str, port: int, address: str, settings: Item, **common: Any) -> Item:
    protocol = "http" if services.is_http(settings) else settings["protocol"]
    return {
        "name": names.listener(direction, port),
        "direction": direction,
        "address": address,
        "port": port,
        "protocol": protocol,
        "virtual_hosts": [],
        "chains": [],
        "tls": None,
        "https_redirect": False,
        "rate_limit": None,
        "max_connections": None,
        "listener_patch": patch(settings, "listener"),
        "http_patch": patch(settings, "http_connection_manager"),
        **common,
    }


def _told(envoy: Item, *, strict: bool, streams: bool = True) -> Item:
    """What all listeners of a proxy have in common. ``strict``: strangers are its clients."""
    http = envoy["http"]
    return {
        "health_path": envoy["health_path"],
        "access_log": envoy["access_log"],
        "http": {
            **http,
            "header_underscores": http["header_underscores"] or ("reject" if strict else "allow"),
            "escaped_slashes": http["escaped_slashes"] or ("redirect" if strict else "keep"),
            "request_timeout": http["request_timeout"]
            or (REQUEST_TIMEOUT if strict and not streams else requests.NO_LIMIT),
        },
    }


def _streams(hosts: list[Item]) -> bool:
    """Whether a request may last as long as its client likes: a stream of gRPC, or a websocket."""
    routes = [route for host in hosts for route in host["routes"]]
    return any(route["websocket"] or route["policy"]["grpc"] for route in routes if "answer" not in route)


def _chain(server_names: list[str], clusters: list[Item], hash_on: Item | None, connects: Item) -> Item:
    return {"server_names": server_names, "clusters": clusters, "hash_on": hash_on, "connects": connects}
