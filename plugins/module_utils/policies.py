# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Network policies of a mesh: who may call whom, made from the model's edges. Pure.

A workload's rules are plain data, ``ingress`` and ``egress``: each rule has ``peers`` and ``ports`` (TCP; none is any).
A peer has one key:

* ``pods``: labels, with ``namespace`` (None: the policy's own, ``*``: any)
* ``cidr``, ``host`` (a DNS name), ``anyone``, ``kubelet`` (of the pod's node), ``api_server``
* ``dns``: the peer is a DNS server, and the ports are of UDP, too
"""

from __future__ import annotations

import ipaddress
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_probes import application_ports, envoy_port
from ansible_collections.sidecar.mesh.plugins.module_utils.policies_cilium import cilium_policy
from ansible_collections.sidecar.mesh.plugins.module_utils.policies_kubernetes import kubernetes_policy
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError

Item = dict[str, Any]

KINDS = {"cilium": cilium_policy, "kubernetes": kubernetes_policy}
DNS_PORT = 53
_API_PORTS = [443, 6443]
"""Of its Service, and those of the servers behind it that a policy sees instead."""
_ANYONE: Item = {"anyone": True}
_KUBELET: Item = {"kubelet": True}
_API_SERVER: Item = {"api_server": True}


def mesh_policies(model: Item, kind: str | None = None) -> dict[str, Item]:
    """``{workload: policy}`` of each service that runs here and each front proxy; empty where they are turned off.

    ``kind``: cilium or kubernetes; that of the model if not given, and kubernetes if that is auto.
    Raises SelectionError for another kind, or a model of another engine.
    """
    mesh = model["mesh"]
    if mesh["engine"] != "kubernetes":
        raise SelectionError(f"mesh_engine: {mesh['engine']!r} has no policies; give a model of engine kubernetes")
    settings = mesh["network_policy"]
    if not settings:
        return {}
    chosen = kind or (settings["kind"] if settings["kind"] != "auto" else "kubernetes")
    if chosen not in KINDS:
        raise SelectionError(f"kind: {str(chosen)!r} is not allowed; give cilium or kubernetes")
    return {name: _policy(name, rules, chosen, mesh) for name, rules in mesh_rules(model).items()}


def _policy(name: str, rules: Item, kind: str, mesh: Item) -> Item:
    made = KINDS[kind](names.selector(name), rules)
    metadata = {
        "name": names.network_policy(name, content_hash(made)),
        "namespace": mesh["namespace"],
        "labels": names.labels(mesh["name"], name, names.NETWORK_POLICY),
    }
    return {**made, "metadata": metadata}


def mesh_rules(model: Item) -> dict[str, Item]:
    """``{workload: {ingress, egress}}``, services before front proxies."""
    mesh = model["mesh"]
    proxies = {proxy["workload"]: proxy for proxy in model["proxies"]}
    callers = _callers(model["proxies"])
    rules: dict[str, Item] = {}
    for service in filter(services.runs_here, model["services"]):
        name = service["name"]
        proxy = proxies.get(name)
        probed = {*application_ports(service), *([envoy_port(proxy)] if proxy else [])}
        who = [_pods(names.selector(caller)) for caller in callers.get(name, [])]
        allowed = _rule([*who, *map(_peer, service["allow_from"])], [services.port(service)])
        ingress = [*allowed, *(_rule([_KUBELET], sorted(probed)) if probed else []), *_metrics(proxy, mesh)]
        rules[name] = {"ingress": ingress, "egress": _egress(service, proxy, mesh)}
    for front in model["front_proxies"]:
        proxy = proxies[front["name"]]
        # Its probes come to a listener, too, which is open to anyone.
        opened = _rule([_ANYONE], sorted(listener["port"] for listener in front["listeners"]))
        probed = {envoy_port(proxy)} - {listener["port"] for listener in front["listeners"]}
        ingress = [*opened, *(_rule([_KUBELET], sorted(probed)) if probed else []), *_metrics(proxy, mesh)]
        rules[front["name"]] = {"ingress": ingress, "egress": _egress(front, proxy, mesh)}
    if mesh["config_delivery"] == "ads":
        rules[names.control_plane(mesh["name"])] = _control_plane(callers.get(names.CONTROL_PLANE_CLUSTER, []), mesh)
    return rules


def _control_plane(proxies: list[str], mesh: Item) -> Item:
    """It is asked by the mesh's proxies, and asks the API server."""
    settings = mesh["control_plane"]
    status = [settings["status_port"]]
    named = [_peer(peer) for peer in mesh["network_policy"]["metrics_from"]]
    asking = _rule([_pods(names.selector(name)) for name in proxies], [settings["port"]])
    seen = _rule([_KUBELET], status) + _rule([*named, _API_SERVER] if named else [_ANYONE], status)
    return {"ingress": [*asking, *seen], "egress": _rule([_API_SERVER], _API_PORTS)}


def _callers(proxies: list[Item]) -> dict[str, list[str]]:
    """Workloads whose proxies have a cluster of a service: upstreams, routes, versions and mirrors alike."""
    found: dict[str, set[str]] = {}
    for proxy in proxies:
        for edge in _called(proxy):
            found.setdefault(edge["name"], set()).add(proxy["workload"])
    return {name: sorted(callers) for name, callers in found.items()}


def _called(proxy: Item) -> list[Item]:
    sender = [proxy["control_plane"]] if proxy["control_plane"] else []
    return [edge for edge in [*proxy["clusters"], *sender] if edge["name"] not in names.OWN_CLUSTERS]


def _metrics(proxy: Item | None, mesh: Item) -> list[Item]:
    """Who reads metrics. The API server passes on the requests by which a change of configuration is followed."""
    if not proxy or not proxy["envoy"]["metrics"]:
        return []
    named = [_peer(peer) for peer in mesh["network_policy"]["metrics_from"]]
    return _rule([*named, _API_SERVER] if named else [_ANYONE], [proxy["envoy"]["metrics"]["port"]])


def _egress(workload: Item, proxy: Item | None, mesh: Item) -> list[Item]:
    """DNS, what the proxy calls, and what the user adds."""
    servers = [{**_peer(peer), "dns": True} for peer in mesh["network_policy"]["dns"]]
    rules = _rule(servers, [DNS_PORT])
    for resolver in mesh["dns"]["resolvers"]:
        rules += _rule([{"cidr": _network(resolver["address"]), "dns": True}], [resolver["port"]])
    for edge in sorted(_called(proxy) if proxy else [], key=lambda edge: str(edge["name"])):
        rules += _edge(edge, mesh)
    for allowed in workload["allow_to"]:
        peer = _destination(allowed["host"], mesh) if allowed["host"] else _peer(allowed)
        rules += _rule([peer], sorted(allowed["ports"]) if "namespace" not in peer or not allowed["host"] else [])
    return rules


def _edge(edge: Item, mesh: Item) -> list[Item]:
    if edge["name"] == names.CONTROL_PLANE_CLUSTER:
        return _rule([_pods(names.selector(names.control_plane(mesh["name"])))], [edge["port"]])
    if edge["discovery"] != "dns":
        ports = sorted({endpoint["port"] for endpoint in edge["endpoints"]})
        return [
            rule
            for port in ports
            for rule in _rule(
                [{"cidr": _network(item["address"])} for item in edge["endpoints"] if item["port"] == port], [port]
            )
        ]
    if not edge["outside"]:
        return _rule([_pods(names.selector(edge["name"]))], [edge["port"]])
    peer = _destination(edge["hostname"], mesh)
    # A Service's port need not be that of its pods, which is what a policy sees.
    return _rule([peer], [] if "pods" in peer else [edge["port"]])


def _rule(peers: list[Item], ports: list[int]) -> list[Item]:
    return [{"peers": peers, "ports": ports}] if peers else []


def _peer(item: Item) -> Item:
    """A peer of the inventory."""
    if item["cidr"]:
        return {"cidr": _network(item["cidr"])}
    return _pods({**item["pods"], **({"app": item["app"]} if item["app"] else {})}, item["namespace"])


def _pods(labels: dict[str, str], namespace: str | None = None) -> Item:
    return {"pods": labels, "namespace": namespace}


def _destination(host: str, mesh: Item) -> Item:
    """A name outside the mesh: of another namespace of the cluster, or of the world."""
    inside, found, _rest = host.removesuffix(f".{mesh['domain']}").rpartition(".svc")
    if found and not _rest and "." in inside:
        return _pods({}, inside.rpartition(".")[2])
    return {"host": host}


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))
