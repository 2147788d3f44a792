# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Envoy configurations of a mesh, resolved: what each listens on, which clusters it has, how requests go.

A proxy is plain data and all a builder needs:

* ``name``, ``workload``, ``kind`` (sidecar, front), ``index`` (of the replica; None where replicas share it), ``zone``
* ``addresses``: listen, application, egress, admin; ``paths``: config, certificates; ``delivery``
* ``envoy``: what the process is told (the schema's ENVOY), ``stats``, ``tracing``
* ``clusters``: see edges; ``siblings``: the cluster of its own workload, where zones matter
* ``listeners``: see ports
* ``secrets``: names of the certificates it serves or shows
* ``control_plane``: the edge to what sends it its configuration, where that is (delivery ads)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import edges, ports, services
from ansible_collections.sidecar.mesh.plugins.module_utils.local import LOCALHOST
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_proxy import ENVOY

Item = dict[str, Any]

EVERY_ADDRESS = "0.0.0.0"  # noqa: S104 - a pod is reached under its own address only


def build_proxies(mesh: Item, all_services: list[Item], front_proxies: list[Item], replicas: list[Item]) -> list[Item]:
    """Every proxy of the mesh: one a workload on Kubernetes, one a replica on the local engine."""
    world = _world(mesh, all_services, replicas)
    sidecars = [
        sidecar(service, place, world)
        for service in all_services
        if services.has_sidecar(service)
        for place in _places(service, world)
    ]
    fronts = [front_proxy(front, place, world) for front in front_proxies for place in _places(front, world)]
    return sidecars + fronts


def every_edge(mesh: Item, all_services: list[Item], replicas: list[Item]) -> list[Item]:
    """One cluster for each service, as a caller without settings of its own has it."""
    world = _world(mesh, all_services, replicas)
    return [edges.edge(service, None, world) for service in all_services if not service["versions"]]


def _world(mesh: Item, all_services: list[Item], replicas: list[Item]) -> Item:
    """What an edge may refer to."""
    return {
        "mesh": mesh,
        "dns": edges.resolvers(mesh),
        "services": {service["name"]: service for service in all_services},
        "replicas": _by_workload(replicas),
        "resting": set(mesh["resting"]),
    }


def sidecar(service: Item, place: Item, world: Item) -> Item:
    """The proxy beside a service's application: one ingress listener, and egress listeners for its upstreams."""
    settings = service["sidecar"]
    own = {upstream["service"]: upstream for upstream in service["upstreams"]}
    called = _called(list(own), own, own.values(), set(), world)
    application = edges.application(service, place["addresses"]["application"])
    listeners = [ports.ingress(service, place), *ports.egress(service, place, world)]
    return _proxy("sidecar", service, settings, place, [application, *called], listeners, settings["port"], world)


def front_proxy(front: Item, place: Item, world: Item) -> Item:
    """A proxy at the mesh's border: its listeners share its routes, and each service has one cluster."""
    own = {upstream["service"]: upstream for upstream in front["upstreams"]}
    routes = services.front_routes(front)
    repeatable = {route["service"] for route in routes if route["idempotent"]}
    called = _called(services.front_services(front), own, [*routes, *own.values()], repeatable, world)
    hosts = ports.front_hosts(front, own, world)
    listeners = [ports.front_listener(listener, front, place, hosts, own, world) for listener in front["listeners"]]
    return _proxy("front", front, front, place, called, listeners, front["listeners"][0]["port"], world)


def _called(asked: list[str], own: Item, policies: Iterable[Item], repeatable: set[str], world: Item) -> list[Item]:
    """One edge to each service that answers or gets copies, in the order of their first mention.

    ``own``: the caller's settings by service; those of a version go before those of the service it is a version of.
    """
    settings: dict[str, Item | None] = {}
    idempotent: set[str] = set()
    for name in asked:
        for callee in services.answering(world["services"][name], world["services"]):
            if callee["name"] == name or callee["name"] not in settings:
                settings[callee["name"]] = own.get(callee["name"]) or own.get(name)
            if name in repeatable:
                idempotent.add(callee["name"])
    mirrors = [policy["mirror"] for policy in policies] + [world["services"][name]["mirror"] for name in asked]
    for mirror in mirrors:
        if mirror:
            settings.setdefault(mirror["service"], None)
    known = world["services"]
    return [edges.edge(known[name], item, world, idempotent=name in idempotent) for name, item in settings.items()]


def _proxy(
    kind: str,
    workload: Item,
    settings: Item,
    place: Item,
    called: list[Item],
    listeners: list[Item],
    port: int,
    world: Item,
) -> Item:
    envoy = {key: settings[key] for key in ENVOY}
    watched = [edges.admin(place["addresses"]["admin"], envoy["admin_port"])] if envoy["metrics"] else []
    # Only requests have traces.
    http = any(listener["protocol"] == "http" for listener in listeners)
    collector = edges.collector(world["mesh"]) if http else None
    shown = [edge["tls"]["client_certificate"] for edge in called if edge["tls"]]
    served = [listener["tls"] for listener in listeners]
    secrets = sorted({name for name in [*shown, *served] if name})
    return {
        **place,
        "paths": {**place["paths"], "certificates": _certificates(secrets, world["mesh"])},
        "kind": kind,
        "envoy": envoy,
        "stats": world["mesh"]["stats"],
        "tracing": world["mesh"]["tracing"] or None,
        "clusters": [*called, *([collector] if collector else []), *watched],
        "siblings": edges.siblings(workload, port, world) if any(edge["zone_aware"] for edge in called) else None,
        "listeners": [*listeners, *ports.metrics(envoy, place)],
        "secrets": secrets,
        "control_plane": edges.control_plane(world["mesh"]),
        "bootstrap_patch": edges.patch(workload, "bootstrap"),
    }


def _certificates(secrets: list[str], mesh: Item) -> Item:
    """Folders of the certificates, by the names of their secrets."""
    if mesh["engine"] == "local":
        return {name: f"{mesh['state_path']}/certificates/{name}" for name in secrets}
    return {name: "/etc/ssl/envoy" if len(secrets) == 1 else f"/etc/ssl/envoy/{name}" for name in secrets}


def _by_workload(replicas: list[Item]) -> dict[str, list[Item]]:
    grouped: dict[str, list[Item]] = {}
    for replica in replicas:
        grouped.setdefault(replica["workload"], []).append(replica)
    return grouped


def _places(workload: Item, world: Item) -> list[Item]:
    """Where the configurations of a workload apply: names, addresses and folders."""
    mesh = world["mesh"]
    if mesh["engine"] == "local":
        return [_local_place(replica, mesh) for replica in world["replicas"].get(workload["name"], [])]
    return [
        {
            "name": workload["name"],
            "workload": workload["name"],
            "index": None,
            "zone": None,
            "addresses": {"listen": EVERY_ADDRESS, "application": LOCALHOST, "egress": LOCALHOST, "admin": LOCALHOST},
            "paths": {"config": "/etc/envoy"},
            "delivery": mesh["config_delivery"],
        }
    ]


def _local_place(replica: Item, mesh: Item) -> Item:
    own = replica["address"]
    return {
        "name": replica["name"],
        "workload": replica["workload"],
        "index": replica["index"],
        "zone": replica["zone"],
        "addresses": {"listen": own, "application": own, "egress": own, "admin": own},
        "paths": {"config": f"{mesh['state_path']}/proxies/{replica['name']}"},
        "delivery": mesh["config_delivery"],
    }
