# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far nodes are, of what the API server says. Source: Kubernetes docs, "Node Status"; EtcdIsVoter is k3s' own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

Object = dict[str, Any]

GOALS = ("registered", "voter", "ready")
_CONDITIONS = {"voter": "EtcdIsVoter", "ready": "Ready"}
_YET = {"voter": "is no voter of etcd yet", "ready": "has said nothing yet"}


class State(NamedTuple):
    """Whether a node is where it should be, and where it is."""

    done: bool
    text: str


def states(objects: Iterable[Object], names: Iterable[str], goal: str) -> dict[str, State]:
    """The state of each of the nodes with these names, of all that the API server lists."""
    found = {item["metadata"]["name"]: item for item in objects}
    return {name: state(found.get(name), goal) for name in names}


def marks(objects: Iterable[Object], names: Iterable[str]) -> dict[str, Object]:
    """Labels and taints of those of the nodes that are there, by their names."""
    return {
        item["metadata"]["name"]: {
            "labels": item["metadata"].get("labels") or {},
            "taints": item.get("spec", {}).get("taints") or [],
        }
        for item in objects
        if item["metadata"]["name"] in names
    }


def state(node: Object | None, goal: str) -> State:
    """``node`` as the API server has it, or nothing; ``goal`` one of GOALS."""
    if node is None:
        return State(False, "is not registered yet")
    if goal == "registered":
        return State(True, "is registered")
    conditions = {item["type"]: item for item in node.get("status", {}).get("conditions", [])}
    condition = conditions.get(_CONDITIONS[goal])
    if condition is None:
        return State(False, _YET[goal])
    if condition["status"] == "True":
        return State(True, "is a voter of etcd" if goal == "voter" else "is Ready")
    return State(False, str(condition.get("message") or condition.get("reason") or _YET[goal]))
