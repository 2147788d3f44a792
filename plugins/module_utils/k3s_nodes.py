# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node is called, where it is, and whether it runs. The shape of a node is told in k3s_plan."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_config import listed

Item = dict[str, Any]

RUNNING = ("active", "activating", "reloading")


def name_of(node: Item) -> str:
    """The node's name in the cluster; k3s takes the machine's, in small letters."""
    return str(node["inputs"]["node_name"] or node["facts"]["nodename"]).lower()


def address_of(node: Item) -> str:
    """The node's first address among the nodes."""
    given = listed(node["inputs"]["node_ip"])
    return str(given[0] if given else node["facts"]["address"])


def is_active(node: Item) -> bool:
    return any(state["active"] in RUNNING for state in node["k3s"]["units"].values())


def installs(node: Item) -> bool:
    """Whether the binary is to be brought, which one that is not there cannot be."""
    k3s, checksum = node["k3s"], node["inputs"]["checksum"]
    if node["binary"]:
        return node["binary"]["sha256"] not in ("", k3s["sha256"])
    return bool(k3s["version"] != node["version"] or (checksum and k3s["sha256"] != checksum))


def a(kind: str) -> str:
    return f"an {kind}" if kind == "agent" else f"a {kind}"
