# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses on the local engine: a loopback address for every replica, ports that need no root."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names

Item = dict[str, Any]

LOCALHOST = "127.0.0.1"
PRIVILEGED = 1024
RAISED_BY = 8000
DNS_PORT = 8053
_PORTS = ("port", "admin_port", "status_port")
# 127.0.x.y belongs to the system (localhost, resolver stubs).
_NETWORKS = range(1 << 8, 255 << 8)


def map_port(port: int) -> int:
    """80 becomes 8080 and 443 becomes 8443; ports from 1024 stay."""
    return port + RAISED_BY if port < PRIVILEGED else port


def map_ports(value: Any) -> Any:
    """A service or front proxy with every port of this machine mapped (see map_port). The argument is not changed."""
    if isinstance(value, dict):
        if value.get("endpoints") or value.get("host"):
            return value
        return {
            # In an environment, "port" is text.
            key: map_port(item) if key in _PORTS and isinstance(item, int) else map_ports(item)
            for key, item in value.items()
            if key != "envoy_patch"
        } | ({"envoy_patch": value["envoy_patch"]} if "envoy_patch" in value else {})
    return [map_ports(item) for item in value] if isinstance(value, list) else value


def allocate(mesh: str, workloads: Iterable[Item]) -> list[Item]:
    """One entry a replica: ``{name, workload, index, address, zone}``, in the order of the workloads.

    A workload owns 127.x.y.0/24, with x.y hashed from the names of mesh and workload: addresses stay when others come
    and go, and meshes lie side by side.
    """
    networks = _networks(mesh, sorted(item["name"] for item in workloads))
    return [
        {
            "name": names.instance(item["name"], index),
            "workload": item["name"],
            "index": index,
            "address": f"{networks[item['name']]}.{index}",
            "zone": item["zones"][(index - 1) % len(item["zones"])] if item["zones"] else None,
        }
        for item in workloads
        for index in range(1, item["replicas"] + 1)
    ]


def dns_address(mesh: str) -> str:
    """Address of the mesh's DNS server."""
    return f"{_own_network(mesh)}.254"


def control_plane_address(mesh: str) -> str:
    return f"{_own_network(mesh)}.253"


def _own_network(mesh: str) -> str:
    """No service can be named like this."""
    return _networks(mesh, [":dns"])[":dns"]


def _networks(mesh: str, workloads: list[str]) -> dict[str, str]:
    taken: set[int] = set()
    networks = {}
    for name in workloads:
        number = _hash(f"{mesh}/{name}")
        while number in taken:
            number = _NETWORKS[(number - _NETWORKS[0] + 1) % len(_NETWORKS)]
        taken.add(number)
        networks[name] = f"127.{number >> 8}.{number & 255}"
    return networks


def _hash(text: str) -> int:
    return _NETWORKS[int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % len(_NETWORKS)]
