# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What does not fit between settings of role cilium, a cluster as it is, and the chart."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_checks import (
    Network,
    Settings,
    inner,
    is_address,
    meet,
    networks,
    ranges,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import chart_values

_MASK = 24
"""Length of a node's part of an IPv4 network; the chart's default."""


def cluster_problems(settings: Settings, nodes: list[dict[str, Any]], release: dict[str, Any]) -> Iterator[str]:
    """``nodes``: Node objects; ``release``: what helm tells of it, with ``chart`` and ``values``, empty without one."""
    for node in nodes:
        for address in _addresses(node):
            yield from _held(settings, node["metadata"]["name"], address)
    yield from _room(settings, max(len(nodes), settings["node_count"]))
    if release:
        yield from _release(settings, release)


def chart_problems(settings: Settings, chart: dict[str, Any]) -> Iterator[str]:
    """``chart``: what module helm_values tells of it, empty before it is there."""
    if not chart.get("name"):
        return
    if chart["name"] != "cilium":
        yield f"cilium_chart: is the chart {chart['name']!r}, not Cilium's; name that"
    elif chart["version"] != settings["version"]:
        yield (
            f"cilium_version: {settings['version']} is not the version of cilium_chart, {chart['version']}; set "
            f"cilium_version: {chart['version']}, or name another chart"
        )
    for entry in chart["unknown"]:
        meant = f", perhaps {entry['nearest']}" if entry["nearest"] else ""
        yield (
            f"cilium_values.{entry['path']}: chart {chart['version']} knows no such value{meant}; correct it, or "
            "name it in cilium_values_unchecked to give it nevertheless"
        )


# Nodes


def _addresses(node: dict[str, Any]) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    return [
        ipaddress.ip_address(entry["address"])
        for entry in (node.get("status") or {}).get("addresses") or []
        if entry["type"] in ("InternalIP", "ExternalIP") and is_address(entry["address"])
    ]


def _held(settings: Settings, node: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> Iterator[str]:
    """Networks and pools that hold a node's own address."""
    for network in networks(settings):
        if address in network:
            yield (
                f"cilium_pod_cidr: {network} holds {address}, the address of node {node}; give a network that is "
                "in use nowhere else"
            )
    for index, pool in enumerate(settings["lb_pools"]):
        for text, found in ranges(pool):
            if meet(found, (address, address)):
                yield f"cilium_lb_pools[{index}].blocks: {text} holds {address}, the address of node {node}"


def _room(settings: Settings, nodes: int) -> Iterator[str]:
    """Whether every node gets a part of the network."""
    pools = inner(chart_values(settings, None), "ipam", "operator")
    for version in (4, 6):
        found = [network for network in networks(settings) if network.version == version]
        key = f"clusterPoolIPv{version}MaskSize"
        mask = int(pools.get(key) or _MASK)
        room = sum(_parts(network, mask) for network in found)
        if found and room < nodes:
            yield (
                f"cilium_pod_cidr: {', '.join(map(str, found))} has a /{mask} for {room} node{'' if room == 1 else 's'}"
                f", not for {nodes}; give a wider network, or a greater cilium_values.ipam.operator.{key}"
            )


def _parts(network: Network, mask: int) -> int:
    return int(2 ** (mask - network.prefixlen)) if mask >= network.prefixlen else 0


# The release


def _release(settings: Settings, release: dict[str, Any]) -> Iterator[str]:
    found = re.fullmatch(r"cilium-([0-9]+\.[0-9]+\..+)", str(release.get("chart")))
    if found is None:
        yield f"cilium_release: is a release of chart {release.get('chart')!r}, not of Cilium; give another name"
        return
    installed, wanted = minor(found[1]), minor(settings["version"])
    if installed != wanted:
        yield (
            f"cilium_version: {settings['version']} cannot replace {found[1]}, which is installed. Cilium is upgraded "
            "one minor version at a time, each after its own preflight, which this role does not do yet. Give a "
            f"version {installed}.x"
        )
    pools = inner(release.get("values"), "ipam", "operator")
    had = [text for version in (4, 6) for text in pools.get(f"clusterPoolIPv{version}PodCIDRList") or []]
    gone = [text for text in had if text not in map(str, networks(settings))]
    if gone:
        yield (
            f"cilium_pod_cidr: {', '.join(gone)} is missing, from which pods of this cluster have their addresses; "
            "keep it, and add networks behind it"
        )


def minor(version: str) -> str:
    """``1.20`` of ``1.20.3``."""
    return ".".join(version.split(".")[:2])
