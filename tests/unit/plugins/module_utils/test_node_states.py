"""How far nodes are."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.node_states import marks, states

NOT_READY = "container runtime network not ready: cni plugin not initialized"


def node(name: str, *conditions: tuple[str, str, str]) -> dict[str, Any]:
    found = [{"type": kind, "status": status, "message": message} for kind, status, message in conditions]
    return {"metadata": {"name": name}, "status": {"conditions": found}}


@pytest.mark.parametrize(
    ("goal", "conditions", "expected"),
    [
        ("registered", [], (True, "is registered")),
        ("ready", [], (False, "has said nothing yet")),
        ("ready", [("Ready", "False", NOT_READY)], (False, NOT_READY)),
        ("ready", [("Ready", "True", "kubelet is posting ready status")], (True, "is Ready")),
        (
            "ready",
            [("Ready", "Unknown", "Kubelet stopped posting node status.")],
            (False, "Kubelet stopped posting node status."),
        ),
        ("voter", [("Ready", "True", "")], (False, "is no voter of etcd yet")),
        (
            "voter",
            [("EtcdIsVoter", "False", "Node has not been promoted from learner")],
            (False, "Node has not been promoted from learner"),
        ),
        ("voter", [("EtcdIsVoter", "True", "")], (True, "is a voter of etcd")),
    ],
)
def test_a_node(goal: str, conditions: list[tuple[str, str, str]], expected: tuple[bool, str]) -> None:
    assert states([node("a", *conditions), node("b")], ["a"], goal) == {"a": expected}


def test_a_node_that_is_not_there() -> None:
    assert states([node("a")], ["b"], "registered") == {"b": (False, "is not registered yet")}


def test_labels_and_taints_of_nodes_that_are_there() -> None:
    given = node("a")
    given["metadata"]["labels"] = {"rack": "9"}
    assert marks([given, node("other")], ["a", "b"]) == {"a": {"labels": {"rack": "9"}, "taints": []}}
