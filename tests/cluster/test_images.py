"""Role images: a tiny application is built by each builder, and reaches both nodes' containerd, or a registry."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviour.local_mesh import free_port
from behaviour.machine import wait_until
from kubernetes import client

from cluster import commands
from cluster.lifecycle import given
from cluster.places import CACHE, NODES, PROGRAMS, Node
from cluster.plays import Play, run_role

Item = dict[str, Any]

DOCKERFILE = """\
FROM scratch
ARG FLAVOR=plain
LABEL flavor=${FLAVOR}
COPY pause message /
USER 65535:65535
ENTRYPOINT ["/pause"]
"""
TO_NODES = {"images_nodes": [node.name for node in NODES], "images_nodes_become": False}
BUILDERS = {"/usr/bin/podman": "podman", "/usr/bin/buildah": "buildah"}
USER, PASSWORD = "robot", "hunter2"
HASHED = "$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8."
"""The password, as registries want it."""


class Application:
    """Sources of an image of its own, and the role run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"test-{secrets.token_hex(4)}"
        self.context = folder / self.name
        self.context.mkdir()
        (self.context / "Dockerfile").write_text(DOCKERFILE)
        shutil.copy(PROGRAMS / "pause", self.context)
        self.write("first")
        self.inventory = folder / "hosts.json"
        self.describe_nodes({})

    def write(self, message: str) -> None:
        (self.context / "message").write_text(message)

    def describe_nodes(self, more: Item) -> None:
        """The inventory: nodes are namespaces of this machine; ``more``: variables of nodes by their names."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": shutil.which("python3")}
        hosts = {
            node.name: {**local, "images_containerd_address": str(node.containerd), **more.get(node.name, {})}
            for node in NODES
        }
        self.inventory.write_text(json.dumps({"all": {"hosts": hosts}}))

    def run(self, variables: Item, *options: str, **environment: str) -> Play:
        shared = {"images_builds": [{"name": "app", "context": str(self.context)}], "images_ctr": str(PROGRAMS / "ctr")}
        return run_role(self.folder, "images", shared | variables, "-i", str(self.inventory), *options, **environment)

    def must_run(self, variables: Item, *options: str) -> Play:
        play = self.run(variables, *options)
        assert play.code == 0, play.failure or play.output
        return play

    def on(self, node: Node) -> set[str]:
        """References of the application's images in a node's containerd."""
        return {line for line in ctr(node, "images", "ls", "-q").split() if self.name in line}


def ctr(node: Node, *command: str) -> str:
    return commands.run(PROGRAMS / "ctr", "--address", node.containerd, "--namespace", "k8s.io", *command)


def told(play: Play) -> str:
    """What a run in check mode says it would do."""
    return "\n".join(
        str(one["msg"]) for _rest, task in play.tasks for one in task.get("results", [task]) if one.get("changed")
    )


def reference(play: Play) -> str:
    return str(play.facts["images_references"]["app"])


@pytest.fixture
def app(cluster: Any, tmp_path: Path) -> Iterator[Application]:
    if outside := given():
        pytest.skip(f"the nodes of KUBECONFIG={outside} are not of this machine")
    application = Application(tmp_path)
    yield application
    for node in NODES:
        if left := application.on(node):
            ctr(node, "images", "rm", *left)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman and buildah, with a place of their own for what they build."""
    commands.install_packages(BUILDERS)
    storage = tmp_path / "storage.conf"
    places = f'graphroot = "{tmp_path}/storage"\nrunroot = "{tmp_path}/run"\n'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))


@pytest.mark.parametrize("builder", ["podman", "buildah"])
def test_nodes_get_what_changed(app: Application, namespace: str, podman: None, cluster: Any, builder: str) -> None:
    variables = {**TO_NODES, "images_builder": builder}
    checked = app.must_run(variables, "--check")
    first = reference(checked)
    assert f"{first} would be built from {app.context} by {builder}" in told(checked)
    assert told(checked).endswith("brought to node-1, node-2")
    assert app.on(NODES[0]) == set()
    assert reference(app.must_run(variables)) == first
    assert [app.on(node) for node in NODES] == [{first}] * 2
    assert app.must_run(variables).changed == []
    assert app.must_run(variables, "--check").changed == []
    with_pod(cluster, namespace, first)
    app.write("second")
    checked = app.must_run({**variables, "images_prune": True}, "--check")
    print(told(checked))
    second = app.must_run({**variables, "images_prune": True})
    print(second.changed)
    assert [app.on(node) for node in NODES] == [{first, reference(second)}, {reference(second)}]
    assert app.must_run({**variables, "images_prune": True}).changed == []


def with_pod(cluster: Any, namespace: str, image: str) -> None:
    """Run a pod of an image on the first node."""
    core = client.CoreV1Api(cluster.api)
    security = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "app", "image": image, "securityContext": security, "imagePullPolicy": "Never"}
    spec = {"containers": [container], "nodeName": NODES[0].name, "terminationGracePeriodSeconds": 0}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "app"}, "spec": spec})

    def running() -> bool:
        return core.read_namespaced_pod("app", namespace).status.phase == "Running"

    wait_until(running, "the pod runs", 60)
