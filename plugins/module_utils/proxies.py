# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Envoy configurations of a mesh, resolved: what each listens on, which clusters it has, how requests go.

A proxy is plain data and all a builder needs:

* ``name``, ``workload``, ``kind`` (sidecar, front), ``index`` (of the replica; None where replicas share it)
* ``addresses``: listen, application, egress, admin; ``paths``: config, certificates
* ``envoy``: admin_port, health_path, access_log, log_level, log_format, concurrency, drain_time, args
* ``clusters``: one entry a cluster (see ``edge``)
* ``listeners``: one entry a listener with its virtual hosts and routes
* ``secrets``: names of the certificates it serves
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.local import DNS_PORT, LOCALHOST, dns_address
from ansible_collections.sidecar.mesh.plugins.module_utils.references import front_services, upstream_hosts
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import ENVOY

Item = dict[str, Any]

SAFE_RETRIES = ("connect-failure", "refused-stream", "reset-before-request")
IDEMPOTENT_RETRIES = (*SAFE_RETRIES, "reset", "gateway-error")
ANY_HOST = ("*",)
EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - a pod is reached under its own address only


def build_proxies(mesh: Item, services: list[Item], front_proxies: list[Item], replicas: list[Item]) -> list[Item]:
    """Every proxy of the mesh: one a workload on Kubernetes, one a replica on the local engine."""
    world = _world(mesh, services, replicas)
    sidecars = [
        sidecar(service, place, world)
        for service in services
        if service["sidecar"] and not service["endpoints"]
        for place in _places(service, world)
    ]
    fronts = [front_proxy(front, place, world) for front in front_proxies for place in _places(front, world)]
    return sidecars + fronts


def every_edge(mesh: Item, services: list[Item], replicas: list[Item]) -> list[Item]:
    """One cluster for each service, as a caller without settings of its own has it."""
    world = _world(mesh, services, replicas)
    return [edge(service, None, world) for service in services]


def _world(mesh: Item, services: list[Item], replicas: list[Item]) -> Item:
    """What an edge may refer to."""
    return {
        "mesh": {**mesh, "dns": _dns(mesh)},
        "services": {service["name"]: service for service in services},
        "replicas": _by_workload(replicas),
        "resting": set(mesh["resting"]),
    }


def sidecar(service: Item, place: Item, world: Item) -> Item:
    """The proxy beside a service's application: one ingress listener, and egress listeners for its upstreams."""
    settings = service["sidecar"]
    edges = [
        (upstream, edge(world["services"][upstream["service"]], upstream, world)) for upstream in service["upstreams"]
    ]
    return {
        **place,
        "kind": "sidecar",
        "envoy": {key: settings[key] for key in ENVOY},
        "clusters": [_application(service, place), *(cluster for _rest, cluster in edges)],
        "listeners": [_ingress(service, place), *_egress(service, edges, place, world["mesh"])],
        "secrets": [],
        "bootstrap_patch": _patch(service, "bootstrap"),
    }


def front_proxy(front: Item, place: Item, world: Item) -> Item:
    """A proxy at the mesh's border: its listeners share its routes, and each service has one cluster."""
    settings = {upstream["service"]: upstream for upstream in front["upstreams"]}
    clusters = [edge(world["services"][name], settings.get(name), world) for name in front_services(front)]
    hashing = {cluster["name"]: cluster["hash_on"] for cluster in clusters}
    hosts = _front_hosts(front, settings, world)
    return {
        **place,
        "kind": "front",
        "envoy": {key: front[key] for key in ENVOY},
        "clusters": clusters,
        "listeners": [_front_listener(listener, front, place, hosts, hashing) for listener in front["listeners"]],
        "secrets": sorted(place["paths"]["certificates"]),
        "bootstrap_patch": _patch(front, "bootstrap"),
    }


def edge(callee: Item, settings: Item | None, world: Item) -> Item:
    """The cluster through which one proxy calls a service.

    ``settings`` is the caller's entry for it, whose values go before the service's own.
    """
    chosen = {
        key: (settings or {}).get(key) or callee[key]
        for key in ("discovery", "lb_policy", "hash_on", "connect_timeout", "health_check")
    }
    mesh = world["mesh"]
    idempotent = bool(settings and settings["idempotent"])
    return {
        **chosen,
        "name": callee["name"],
        "protocol": callee["protocol"],
        "connect_timeout": chosen["connect_timeout"] or ("0.25s" if idempotent else "1s"),
        "health_check": health_check(chosen["health_check"], callee["protocol"]),
        "hostname": names.dns_name(callee["name"], mesh["namespace"], mesh["domain"]),
        "port": callee_port(callee),
        "endpoints": _endpoints(callee, world),
        "dns": mesh["dns"],
        "envoy_patch": _patch(settings, "cluster"),
    }


def callee_port(callee: Item) -> int:
    """The port on which callers reach a service: its sidecar's, or its own where it has none."""
    port: int = callee["sidecar"]["port"] if callee["sidecar"] and not callee["endpoints"] else callee["port"]
    return port


def policy(settings: Item, edge_settings: Item | None, protocol: str) -> Item:
    """Timeout, retries and rewrites of one route; what a route leaves open its edge decides."""
    merged = {
        key: settings[key] if settings[key] is not None else (edge_settings or {}).get(key)
        for key in ("timeout", "retries", "idempotent")
    }
    return {
        "timeout": merged["timeout"] or ("0s" if protocol == "grpc" else "15s"),
        "grpc_deadline": protocol == "grpc" and merged["timeout"] is None,
        "retries": _retries(merged["retries"], bool(merged["idempotent"])),
        "prefix_rewrite": settings["prefix_rewrite"],
        "host_rewrite": settings["host_rewrite"],
    }


def health_check(settings: Item | None, protocol: str) -> Item | None:
    """A health check with its type; by default what the protocol suggests."""
    return settings and {**settings, "type": settings["type"] or {"http2": "http"}.get(protocol, protocol)}


def _retries(settings: Item | None, idempotent: bool) -> Item:
    settings = settings or {"count": None, "on": None, "per_try_timeout": None}
    count = settings["count"] if settings["count"] is not None else (4 if idempotent else 2)
    return {
        "count": count,
        "on": list(settings["on"] or (IDEMPOTENT_RETRIES if idempotent else SAFE_RETRIES)),
        "per_try_timeout": settings["per_try_timeout"] or ("1s" if idempotent else None),
    }


def _dns(mesh: Item) -> Item:
    """The resolvers: those of the inventory, else on the local engine the mesh's own DNS server."""
    dns: Item = mesh["dns"]
    if dns["resolvers"] or mesh["engine"] != "local":
        return dns
    return {**dns, "resolvers": [{"address": dns_address(mesh["name"]), "port": DNS_PORT}]}


def _by_workload(replicas: list[Item]) -> dict[str, list[Item]]:
    grouped: dict[str, list[Item]] = {}
    for replica in replicas:
        grouped.setdefault(replica["workload"], []).append(replica)
    return grouped


def _endpoints(callee: Item, world: Item) -> list[Item]:
    if callee["endpoints"]:
        return [
            {"address": endpoint["address"], "port": endpoint["port"] or callee["port"]}
            for endpoint in callee["endpoints"]
        ]
    return [
        {"address": replica["address"], "port": callee_port(callee)}
        for replica in world["replicas"].get(callee["name"], [])
        if replica["name"] not in world["resting"]
    ]


def _places(workload: Item, world: Item) -> list[Item]:
    """Where the configurations of a workload apply: names, addresses and folders."""
    mesh = world["mesh"]
    secrets = sorted({listener["tls"]["secret"] for listener in workload.get("listeners", []) if listener["tls"]})
    if mesh["engine"] == "local":
        return [_local_place(replica, secrets, mesh) for replica in world["replicas"].get(workload["name"], [])]
    mounts = {name: "/etc/ssl/envoy" if len(secrets) == 1 else f"/etc/ssl/envoy/{name}" for name in secrets}
    return [
        {
            "name": workload["name"],
            "workload": workload["name"],
            "index": None,
            "addresses": {"listen": EVERY_ADDRESS, "application": LOCALHOST, "egress": LOCALHOST, "admin": LOCALHOST},
            "paths": {"config": "/etc/envoy", "certificates": mounts},
            "delivery": mesh["config_delivery"],
        }
    ]


def _local_place(replica: Item, secrets: list[str], mesh: Item) -> Item:
    own = replica["address"]
    state = mesh["state_path"]
    return {
        "name": replica["name"],
        "workload": replica["workload"],
        "index": replica["index"],
        "addresses": {"listen": own, "application": own, "egress": own, "admin": own},
        "paths": {
            "config": f"{state}/proxies/{replica['name']}",
            "certificates": {name: f"{state}/certificates/{name}" for name in secrets},
        },
        "delivery": mesh["config_delivery"],
    }


def _application(service: Item, place: Item) -> Item:
    """The cluster of a sidecar's own application."""
    return {
        "name": names.APPLICATION_CLUSTER,
        "protocol": service["protocol"],
        "discovery": "static",
        "lb_policy": "round_robin",
        "connect_timeout": service["connect_timeout"] or "1s",
        "health_check": health_check(service["health_check"], service["protocol"]),
        "hostname": None,
        "port": service["port"],
        "endpoints": [{"address": place["addresses"]["application"], "port": service["port"]}],
        "envoy_patch": _patch(service, "cluster"),
    }


def _ingress(service: Item, place: Item) -> Item:
    settings = service["sidecar"]
    routes = [
        {
            "match": match(route),
            "cluster": names.APPLICATION_CLUSTER,
            # The caller's own time limit holds; a second one here could only cut it short.
            "policy": {
                "timeout": "0s",
                "grpc_deadline": False,
                "retries": None,
                "prefix_rewrite": None,
                "host_rewrite": None,
            },
            "hash_on": None,
            "envoy_patch": _patch(route, "route"),
        }
        for route in settings["routes"]
    ]
    return _listener(
        "ingress",
        service["sidecar"]["port"],
        place["addresses"]["listen"],
        service,
        [_virtual_host("ingress", ANY_HOST, routes)],
        health_path=settings["health_path"],
        access_log=settings["access_log"],
        cluster=names.APPLICATION_CLUSTER,
    )


def _egress(service: Item, edges: list[tuple[Item, Item]], place: Item, mesh: Item) -> list[Item]:
    address = place["addresses"]["egress"]
    log = {"health_path": None, "access_log": service["sidecar"]["access_log"]}
    own = [
        _listener(
            "egress",
            upstream["port"],
            address,
            {"protocol": cluster["protocol"], "envoy_patch": upstream["envoy_patch"]},
            [_virtual_host(cluster["name"], ANY_HOST, [_egress_route(upstream, cluster)])],
            cluster=cluster["name"],
            hash_on=cluster["hash_on"],
            **log,
        )
        for upstream, cluster in edges
        if upstream["port"]
    ]
    shared: dict[tuple[str, ...], list[tuple[Item, Item]]] = {}
    for upstream, cluster in edges:
        if not upstream["port"]:
            shared.setdefault(upstream_hosts(upstream, mesh), []).append((upstream, cluster))
    hosts = [
        _virtual_host(group[0][1]["name"], domains, [_egress_route(*pair) for pair in group])
        for domains, group in shared.items()
    ]
    settings = {"protocol": "http", "envoy_patch": None}
    return own + ([_listener("egress", service["egress"]["port"], address, settings, hosts, **log)] if hosts else [])


def _egress_route(upstream: Item, cluster: Item) -> Item:
    return {
        "match": match(upstream["match"]) if upstream["match"] else {"prefix": "/", "headers": [], "grpc": False},
        "cluster": cluster["name"],
        "policy": policy(upstream, None, cluster["protocol"]),
        "hash_on": cluster["hash_on"],
        "envoy_patch": _patch(upstream, "route"),
    }


def _front_hosts(front: Item, settings: Item, world: Item) -> list[Item]:
    def route(item: Item) -> Item:
        callee = world["services"][item["service"]]
        own = settings.get(item["service"])
        return {
            "match": match(item),
            "cluster": callee["name"],
            "policy": policy(item, own, callee["protocol"]),
            "hash_on": (own or {}).get("hash_on") or callee["hash_on"],
            "envoy_patch": _patch(item, "route"),
        }

    hosts = [
        _virtual_host(host["name"], tuple(host["domains"]), [route(item) for item in host["routes"]])
        for host in front["virtual_hosts"]
    ]
    return hosts + (
        [_virtual_host("default", ANY_HOST, [route(item) for item in front["routes"]])] if front["routes"] else []
    )


def _front_listener(listener: Item, front: Item, place: Item, hosts: list[Item], hashing: Item) -> Item:
    # On the local engine users find the first replica on localhost.
    address = LOCALHOST if place["index"] == 1 else place["addresses"]["listen"]
    tls = listener["tls"]
    built = _listener(
        "front",
        listener["port"],
        address,
        listener,
        hosts,
        health_path=front["health_path"],
        access_log=front["access_log"],
        cluster=listener["service"],
        hash_on=hashing.get(listener["service"]),
    )
    return {**built, "tls": tls and tls["secret"], "https_redirect": listener["https_redirect"]}


def _listener(
    direction: str,
    port: int,
    address: str,
    settings: Item,
    hosts: list[Item],
    *,
    health_path: str | None,
    access_log: Item | None,
    cluster: str | None = None,
    hash_on: Item | None = None,
) -> Item:
    tcp = settings["protocol"] == "tcp"
    return {
        "name": names.listener(direction, port),
        "direction": direction,
        "address": address,
        "port": port,
        "protocol": settings["protocol"],
        "cluster": cluster if tcp else None,
        "hash_on": hash_on if tcp else None,
        "virtual_hosts": [] if tcp else hosts,
        "health_path": health_path,
        "access_log": access_log,
        "tls": None,
        "https_redirect": False,
        "listener_patch": _patch(settings, "listener"),
        "http_patch": _patch(settings, "http_connection_manager"),
    }


def _virtual_host(name: str, domains: tuple[str, ...], routes: list[Item]) -> Item:
    return {"name": name, "domains": list(domains), "routes": routes}


def match(settings: Item) -> Item:
    """One matcher of a path, ``grpc`` resolved to the path it stands for."""
    grpc = settings["grpc"]
    if grpc:
        path = {"path": f"/{grpc}"} if "/" in grpc else {"prefix": f"/{grpc}/"}
    else:
        path = {key: settings[key] for key in ("prefix", "path", "regex") if settings[key] is not None} or {
            "prefix": "/"
        }
    return {**path, "headers": settings["headers"] or [], "grpc": bool(grpc)}


def _patch(settings: Item | None, level: str) -> Item:
    patches = (settings or {}).get("envoy_patch") or {}
    return patches.get(level) or {}
