# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a look at all nodes tells: names and addresses, networks, and who belongs to which cluster."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any, Union

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_nodes import a, address_of, name_of

Item = dict[str, Any]
# ansible-test's pylint knows no | between types.
Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]  # noqa: UP007

OWN_INTERFACES = re.compile(r"^(cilium|lxc|cni0|flannel|kube-|veth)")
"""Links whose networks are the cluster's own."""

_ALIKE = ("network", "cluster_cidr", "service_cidr", "api_address", "datastore")


def check(nodes: dict[str, Item], plan: Item, wanted: Item) -> Iterator[str]:
    for host in wanted["strays"]:
        yield (
            f"{host}: is in neither group of k3s; put it into one (k3s_server_group, k3s_agent_group), or leave it"
            " out of the play"
        )
    for host in wanted["both"]:
        yield f"{host}: is in the groups of servers and of agents; servers run pods, too: take it out of the agents"
    yield from _check_each_other(nodes)
    yield from _check_servers(nodes, plan)
    yield from _check_networks(nodes, plan)


def check_membership(host: str, nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    """Whether a node is of another cluster, or of another kind in this one."""
    node = nodes[host]
    k3s, reference = node["k3s"], nodes[plan["leader"]]["k3s"]["authority"]
    if k3s["authority"] and host != plan["leader"] and k3s["authority"] != reference:
        whose = f"of another cluster than {plan['leader']} is" if reference else "of a cluster of before"
        yield (
            f"cluster: the node is {whose}, and would not believe its certificates; reset it first"
            f" (playbook reset, --limit {host}), or take it out of the inventory"
        )
    for name in ("cluster_cidr", "service_cidr"):
        present, asked = k3s["config"][name.replace("_", "-")], k3s_config.comma(node["inputs"][name])
        if k3s["datastore"] and present and present != asked:
            yield f"k3s_{name}: {asked}: the cluster was made with {present}, which cannot change; set that one"
    if k3s["token"] == "other":  # noqa: S105 - a state, no token
        yield (
            "k3s_token: is not the token of the cluster that this server runs; remove the variable, or set that one"
            f" ({node['inputs']['data_path']}/server/token)"
        )
    if k3s["units"] and plan["nodes"][host]["unit"] not in k3s["units"]:
        other = {"server": "agent", "agent": "server"}[node["kind"]]
        yield (
            f"cluster: the node is {a(other)} already, and its group says {node['kind']}; reset it first"
            f" (playbook reset, --limit {host})"
        )


def _check_each_other(nodes: dict[str, Item]) -> Iterator[str]:
    names = {host: name_of(node) for host, node in nodes.items()}
    yield from _twice(names, "node name", "give them names of their own by k3s_node_name, or hostnames")
    addresses = {host: address_of(node) for host, node in nodes.items()}
    yield from _twice(addresses, "address", "set k3s_node_ip to the address by which the other nodes reach them")


def _twice(values: dict[str, str], what: str, remedy: str) -> Iterator[str]:
    for value in sorted({value for value in values.values() if value}):
        hosts = [host for host, other in values.items() if other == value]
        if len(hosts) > 1:
            yield f"{', '.join(hosts)}: {what} {value!r}: they all have it; {remedy}"


def _check_servers(nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    """What all servers must have alike, and what several cannot have."""
    count = len(plan["servers"])
    if plan["datastore"] == "sqlite" and count > 1:
        yield f"k3s_datastore: sqlite: is for a single server, and there are {count}; set etcd, or leave it out"
    servers = {host: node["inputs"] for host, node in nodes.items() if node["kind"] == "server"}
    for name in _ALIKE:
        yield from _differs({host: inputs[name] for host, inputs in servers.items()}, f"k3s_{name}")
    for key in k3s_config.ALIKE:
        values = {host: inputs["server_config"].get(key) for host, inputs in servers.items()}
        yield from _differs(values, f"k3s_server_config.{key}")


def _differs(values: dict[str, Any], variable: str) -> Iterator[str]:
    if len({str(value) for value in values.values()}) > 1:
        told = ", ".join(f"{value!r} on {host}" for host, value in values.items())
        yield f"{variable}: {told}: must be the same on every server; set it once, for the group"


def _check_networks(nodes: dict[str, Item], plan: Item) -> Iterator[str]:
    """CIDRs that are none, overlap each other, or networks that nodes reach already."""
    inputs = nodes[plan["leader"]]["inputs"]
    given: list[tuple[str, Network]] = []
    for name in ("cluster_cidr", "service_cidr"):
        for text in k3s_config.listed(inputs[name]):
            try:
                given.append((f"k3s_{name}", ipaddress.ip_network(text)))
            except ValueError as exc:
                yield f"k3s_{name}: {text!r}: is no network ({exc}); give one such as 10.42.0.0/16"
    for index, (variable, network) in enumerate(given):
        for other, second in given[:index]:
            if _overlap(network, second):
                yield f"{variable}: {network}: overlaps with {other} {second}; choose another"
        yield from _check_routes(variable, network, nodes)


def _check_routes(variable: str, network: Network, nodes: dict[str, Item]) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    # What a node of a cluster has routes to may be its pods.
    for host, node in [(host, node) for host, node in nodes.items() if not node["k3s"]["authority"]]:
        for route in node["machine"]["networks"]:
            taken = ipaddress.ip_network(route["network"])
            if not OWN_INTERFACES.match(route["interface"]) and _overlap(network, taken):
                found.setdefault(f"{taken} (interface {route['interface']})", []).append(host)
    for taken_by, hosts in found.items():
        yield (
            f"{variable}: {network}: overlaps with the network {taken_by} of {', '.join(hosts)}, which then could"
            " not be reached; choose another"
        )


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)
