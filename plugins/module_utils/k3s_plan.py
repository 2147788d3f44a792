# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every node of an inventory becomes: its place in the cluster, its files, and what has to be done for it.

``nodes`` are by host of the inventory, each with

* ``kind``: server or agent
* ``inputs``: the variables of role k3s, without their prefix
* ``host``: where Ansible reaches it
* ``facts``, ``machine``, ``ports``, ``k3s``: what module k3s_node_info found
* ``version``: the release it is to have
* ``binary``: of a local file instead its ``path``, ``architecture`` and ``sha256``, empty ones if it is not there; or
  nothing

Hosts of the groups that are not in this run are missing.
"""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_facts import UNITS
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_nodes import address_of, installs, is_active, name_of
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_preflight import find_problems, find_warnings

Item = dict[str, Any]


_NO_SERVER = "k3s_servers: is empty, or none of its hosts is reached; name a server"


def build_plan(nodes: dict[str, Item], servers: list[str], wanted: Item) -> Item:
    """The plan of a run.

    ``servers``: the group's hosts, in its order. ``wanted``: ``run``, the hosts of this run; ``strays``, those of them
    in neither group; ``both``, those in both; ``max_clock_skew`` in seconds.

    Returns ``problems`` and ``warnings``, lines for a person; ``leader``, the server that the others join; ``members``,
    servers that have the cluster's data; ``exists``, whether any does; ``datastore``; ``network``; ``cluster_cidr``;
    ``kubeconfig_url``; and ``nodes``. Of each node: ``name``, ``unit``, ``address``, ``config``, ``has_secrets``,
    ``environment``, ``installs``, ``joined``, ``active``, ``outdated`` (files newer than its process), and of tokens
    ``takes_token``, ``begins`` (with the user's token rather than the cluster's) and ``lacks_token`` (the cluster's).
    """
    known = [host for host in servers if host in nodes]
    if not known:
        return _without_servers(nodes)
    cluster = _cluster(nodes, known, servers)
    planned = {host: _node(host, nodes, cluster) for host in nodes}
    result = {**cluster, "nodes": planned}
    return {
        **result,
        "problems": list(find_problems(nodes, result, wanted)),
        "warnings": list(find_warnings(nodes, result, wanted)),
    }


def _without_servers(nodes: dict[str, Item]) -> Item:
    """Enough of a plan to tell the problem, or to take nodes off a cluster that is gone."""
    addresses = [node["inputs"]["api_address"] for node in nodes.values()]
    return {
        "problems": [_NO_SERVER],
        "warnings": [],
        "exists": False,
        "kubeconfig_url": k3s_config.url(addresses[0] if addresses else ""),
        "nodes": {host: {"kind": node["kind"], "name": name_of(node)} for host, node in nodes.items()},
    }


def _cluster(nodes: dict[str, Item], known: list[str], servers: list[str]) -> Item:
    """What is true for all nodes."""
    inputs = nodes[known[0]]["inputs"]
    stores = {host: nodes[host]["k3s"]["datastore"] for host in known}
    external = "datastore-endpoint" in inputs["server_config"]
    members = [host for host in known if stores[host] or (external and nodes[host]["k3s"]["authority"])]
    running = [host for host in members if is_active(nodes[host])]
    leader = (running or members or known)[0]
    return {
        "leader": leader,
        "servers": servers,
        "members": members,
        "exists": bool(members),
        "datastore": "external" if external else _datastore(inputs["datastore"], list(stores.values()), servers),
        "api_address": inputs["api_address"],
        "network": inputs["network"],
        "cluster_cidr": k3s_config.listed(inputs["cluster_cidr"]),
        "kubeconfig_url": k3s_config.url(inputs["api_address"] or _reached(nodes[leader])),
    }


def _datastore(asked: str, present: list[str], servers: list[str]) -> str:
    """A single server has SQLite unless it is told otherwise, or was one of several before."""
    if "etcd" in present or (asked == "auto" and len(servers) > 1):
        return "etcd"
    return "sqlite" if asked == "auto" else asked


def _node(host: str, nodes: dict[str, Item], cluster: Item) -> Item:
    node = nodes[host]
    kind, inputs, k3s = node["kind"], node["inputs"], node["k3s"]
    joins = _joins(host, nodes, cluster)
    completed = {**inputs, "tls_san": _names(node, cluster)} if kind == "server" else inputs
    unit = UNITS[0] if kind == "server" else UNITS[1]
    state = k3s["units"].get(unit, {})
    begins = kind == "server" and "server" not in joins and host == cluster["leader"]
    takes_token = "token-file" in joins
    cluster_token = nodes[cluster["leader"]]["k3s"]["tokens"].get(kind)
    return {
        "kind": kind,
        "name": name_of(node),
        "unit": unit,
        "address": address_of(node),
        "config": k3s_config.node_config(kind, completed, joins),
        "has_secrets": any(key in inputs[f"{kind}_config"] for key in k3s_config.SECRET),
        "environment": k3s_config.environment(inputs, _direct(node, joins)),
        "installs": installs(node),
        "joined": bool(k3s["authority"]),
        "active": is_active(node),
        "outdated": state.get("stale", []),
        "takes_token": takes_token,
        "begins": begins,
        "lacks_token": takes_token
        and not begins
        and (cluster_token is None or k3s["tokens"].get("given") != cluster_token),
    }


def _joins(host: str, nodes: dict[str, Item], cluster: Item) -> Item:
    """How a node finds its cluster. Only one server may ever begin one, and only while there is none."""
    node = nodes[host]
    token = {"token-file": k3s_config.TOKEN_FILE}
    given = token if node["inputs"]["token_given"] else {}
    url = _server(host, nodes, cluster)
    server = {"server": url, **token}
    if node["kind"] == "agent":
        return server
    if cluster["datastore"] == "external":
        return given if host == cluster["leader"] else token
    has_joined = bool(node["k3s"]["datastore"] and node["k3s"]["config"]["server"])
    if (has_joined and url) or (host not in cluster["members"] and host != cluster["leader"]):
        return server
    return {**given, "cluster-init": True} if cluster["datastore"] == "etcd" else given


def _server(host: str, nodes: dict[str, Item], cluster: Item) -> str:
    """The URL a node joins by. One that has joined keeps its own while that is a server's: k3s would only restart."""
    if cluster["api_address"]:
        return k3s_config.url(cluster["api_address"])
    urls = {one: k3s_config.url(address_of(nodes[one])) for one in cluster["servers"] if one in nodes and one != host}
    present = nodes[host]["k3s"]["config"]["server"]
    if nodes[host]["k3s"]["authority"] and present in urls.values():
        return str(present)
    first = cluster["servers"][0]
    serves = first in urls and (is_active(nodes[first]) or not cluster["exists"])
    chosen = first if serves else cluster["leader"]
    return urls.get(chosen) or next(iter(urls.values()), "")


def _names(node: Item, cluster: Item) -> list[str]:
    """What an API server's certificate must be for, beyond what k3s puts in itself."""
    inputs = node["inputs"]
    names = [*inputs["tls_san"], cluster["api_address"], *k3s_config.listed(inputs["node_external_ip"]), _reached(node)]
    return sorted({name for name in names if name})


def _reached(node: Item) -> str:
    """A node's address as seen from where Ansible runs."""
    try:
        return str(ipaddress.ip_address(node["host"]))
    except ValueError:  # a name that perhaps only SSH or podman knows
        return address_of(node)


def _direct(node: Item, joins: Item) -> list[str]:
    """What a node reaches without a proxy: its own network, itself, and the server it joins."""
    server = urlsplit(joins.get("server", "")).hostname or ""
    return [part for part in (node["facts"]["network"], address_of(node), server) if part]
