"""Role images: a tiny application is built by each builder, and reaches both nodes' containerd, or a registry."""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from behaviour.machine import free_port, wait_until
from kubernetes import client

from cluster.commands import install_packages, run, tried
from cluster.places import KUBECONFIG, NODES, PROGRAMS, Node
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
PRUNED = {**TO_NODES, "images_prune": True}
USER, PASSWORD = "robot", "hunter2"
HASHED = "$2b$05$abcdefghijklmnopqrstuuoXuKqgZXLiJqzfmMXDDhSFPIvxV7t8."
"""The password, as the registry wants it."""


class Application:
    """Sources of an image of its own, and the role run on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"test-{secrets.token_hex(4)}"
        self.context = folder / self.name
        self.context.mkdir()
        (self.context / "Dockerfile").write_text(DOCKERFILE)
        shutil.copy(PROGRAMS / "pause", self.context)
        self.write("first")
        self.digests: set[str] = set()
        self.inventory = folder / "hosts.json"
        self.describe_nodes({})

    def write(self, message: str) -> None:
        (self.context / "message").write_text(message)

    def describe_nodes(self, more: Item) -> None:
        """The inventory: nodes are namespaces of this machine; ``more``: variables of nodes by their names."""
        local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
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
        found = {row[0]: row[2] for row in listed(node) if self.name in row[0]}
        self.digests |= set(found.values())
        return set(found)

    def clean(self, node: Node) -> None:
        """Remove all that reached a node, under the names of Kubernetes, too."""
        if left := self.on(node) | {row[0] for row in listed(node) if row[2] in self.digests}:
            ctr(node, "images", "rm", *left)


def listed(node: Node) -> list[list[str]]:
    """The images in a node's containerd: reference, type, digest, and more."""
    return [line.split() for line in ctr(node, "images", "ls").splitlines()[1:]]


def ctr(node: Node, *command: str) -> str:
    return run(PROGRAMS / "ctr", "--address", node.containerd, "--namespace", "k8s.io", *command)


def told(play: Play) -> str:
    """What a run in check mode says it would do."""
    return "\n".join(
        str(one["msg"]) for _rest, task in play.tasks for one in task.get("results", [task]) if one.get("changed")
    )


def reference(play: Play) -> str:
    facts = (result.get("ansible_facts", {}) for _rest, result in play.tasks)
    return str(next(each["images_references"]["app"] for each in facts if "images_references" in each))


@pytest.fixture
def app(cluster: Any, tmp_path: Path) -> Iterator[Application]:
    if cluster.kubeconfig != KUBECONFIG:
        pytest.skip(f"the nodes of KUBECONFIG={cluster.kubeconfig} are not of this machine")
    application = Application(tmp_path)
    yield application
    for node in NODES:
        application.clean(node)


@pytest.fixture(params=["podman", "buildah", "docker"])
def builder(request: pytest.FixtureRequest) -> str:
    """A builder that keeps what it builds apart from what others did."""
    request.getfixturevalue("docker" if request.param == "docker" else "podman")
    return str(request.param)


@pytest.fixture
def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman and buildah, which share their images."""
    install_packages({"/usr/bin/podman": "podman", "/usr/bin/buildah": "buildah"})
    storage = tmp_path / "storage.conf"
    places = f'graphroot = "{tmp_path}/storage"\nrunroot = "{tmp_path}/run"\n'
    storage.write_text(f'[storage]\ndriver = "vfs"\n{places}')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon of docker's own that leaves the machine's network alone."""
    if not (shutil.which("docker") and shutil.which("dockerd")):
        pytest.skip("docker and dockerd are not on PATH (Debian has them in docker.io)")
    plugins = json.loads(run("docker", "info", "--format", "{{json .ClientInfo.Plugins}}")) or []
    plugin = next((each["Path"] for each in plugins if each["Name"] == "buildx"), "")
    if not plugin:
        pytest.skip("docker has no plugin buildx, without which nothing builds")
    (tmp_path / "docker" / "cli-plugins").mkdir(parents=True)
    (tmp_path / "docker" / "cli-plugins" / "docker-buildx").symlink_to(plugin)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    address = f"unix://{tmp_path}/docker.sock"
    monkeypatch.setenv("DOCKER_HOST", address)
    paths = {"data-root": "data", "exec-root": "exec", "pidfile": "docker.pid"}
    places = [f"--{option}={tmp_path / path}" for option, path in paths.items()]
    network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    # Where docker is not installed with all it needs, the nodes' containerd will do.
    path = {**os.environ, "PATH": f"{os.environ['PATH']}:{PROGRAMS}"}
    with running(["dockerd", f"--host={address}", "--storage-driver=vfs", *places, *network], path):
        wait_until(lambda: tried("docker", "version"), "docker answers", 60)
        yield


@contextmanager
def running(command: list[str], environment: dict[str, str] | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Host and port of a registry that wants a login, and has no certificate."""
    install_packages({"/usr/bin/docker-registry": "docker-registry"})
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    configuration = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
        "auth": {"htpasswd": {"realm": "tests", "path": str(tmp_path / "htpasswd")}},
    }
    (tmp_path / "registry.json").write_text(json.dumps(configuration))
    with running(["docker-registry", "serve", str(tmp_path / "registry.json")]):
        wait_until(lambda: tags(address, "none") == [], "the registry answers", 30)
        yield address


def login(address: str, password: str = PASSWORD) -> Item:
    """A login, as podman and docker keep it."""
    return {"auths": {address: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}}


def tags(address: str, repository: str) -> list[str] | None:
    """What a registry has; nothing if it does not answer."""
    headers = {"Authorization": f"Basic {login(address)['auths'][address]['auth']}"}
    request = urllib.request.Request(f"http://{address}/v2/{repository}/tags/list", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return list(json.load(answer)["tags"])
    except urllib.error.HTTPError as answer:
        return [] if answer.code == 404 else None
    except OSError:
        return None


@pytest.mark.usefixtures("podman")
@pytest.mark.thorough
def test_nodes_get_what_changed_and_keep_what_runs(app: Application, cluster: Any, namespace: str) -> None:
    checked = app.must_run(TO_NODES, "--check")
    first = reference(checked)
    what = f"{first} would be built from {app.context} by podman unless podman has it"
    assert told(checked) == f"{what}, and brought to node-1, node-2"
    assert [app.on(node) for node in NODES] == [set()] * 2
    assert reference(app.must_run(TO_NODES)) == first
    assert [app.on(node) for node in NODES] == [{first}] * 2
    assert app.must_run(PRUNED).changed == []
    start_pod(cluster, namespace, first)
    app.write("second")
    checked = app.must_run(PRUNED, "--check")
    assert told(checked).splitlines()[1:] == [f"{first} would be removed from node-2"]
    assert [app.on(node) for node in NODES] == [{first}] * 2
    second = reference(app.must_run(PRUNED))
    assert second != first
    assert [app.on(node) for node in NODES] == [{first, second}, {second}]
    assert app.must_run(PRUNED).changed == []


def start_pod(cluster: Any, namespace: str, image: str) -> None:
    """Run a pod of an image on the first node."""
    core = client.CoreV1Api(cluster.api)
    security = {
        "runAsNonRoot": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {"name": "app", "image": image, "imagePullPolicy": "Never", "securityContext": security}
    spec = {"containers": [container], "nodeName": NODES[0].name, "terminationGracePeriodSeconds": 0}
    core.create_namespaced_pod(namespace, {"metadata": {"name": "app"}, "spec": spec})

    def runs() -> bool:
        return bool(core.read_namespaced_pod("app", namespace).status.phase == "Running")

    wait_until(runs, "the pod runs", 60)


@pytest.mark.usefixtures("podman")
@pytest.mark.thorough
def test_k3s_keeps_archives_where_it_looks_for_them(app: Application, tmp_path: Path) -> None:
    """A program that takes k3s' arguments, and a folder like its own, stand for k3s on the first node."""
    k3s, folder = tmp_path / "k3s", tmp_path / "rancher" / "agent"
    k3s.write_text(f'#!/bin/sh\nshift\nexec {PROGRAMS}/ctr --address {NODES[0].containerd} "$@"\n')
    k3s.chmod(0o755)
    folder.mkdir(parents=True)
    app.describe_nodes({"node-1": {"images_k3s": str(k3s), "images_k3s_path": str(folder.parent)}})
    kept = tmp_path / "archives"
    variables = {**PRUNED, "images_builder": "buildah", "images_archives": str(kept)}
    for message in ("first", "second"):
        app.write(message)
        made = reference(app.must_run(variables))
        archive = f"{made.rpartition('/')[2].replace(':', '-')}.tar"
        assert [app.on(node) for node in NODES] == [{made}] * 2
        assert [path.name for path in (folder / "images").iterdir()] == [archive]
        assert archive in [path.name for path in kept.iterdir()]
    pinned = [row for node in NODES for row in listed(node) if row[0] == made and "pinned=pinned" in row[-1]]
    assert len(pinned) == 2
    assert not list(Path("/var/tmp").glob(f"sidecar-mesh-images-*/{archive}"))
    # What is there is neither built nor brought again.
    (kept / archive).unlink()
    assert app.must_run(variables).changed == ["Save with buildah"]


@pytest.mark.thorough
def test_a_registry_gets_what_it_lacks(app: Application, builder: str, registry: str, tmp_path: Path) -> None:
    repository = f"shop/{app.name}"
    variables = {"images_registry": f"{registry}/shop", "images_registry_insecure": True, "images_builder": builder}
    logins = tmp_path / "docker" / "config.json"
    logins.parent.mkdir(exist_ok=True)
    logins.write_text(json.dumps(login(registry)))
    variables["images_auth_file"] = str(logins)
    made = reference(app.must_run(variables))
    assert made.startswith(f"{registry}/{repository}:")
    assert tags(registry, repository) == [made.rpartition(":")[2]]
    assert app.must_run(variables).changed == []


@pytest.mark.usefixtures("podman")
def test_a_login_that_is_missing_or_wrong_is_told(app: Application, registry: str, tmp_path: Path) -> None:
    logins = tmp_path / "auth.json"
    variables = {"images_registry": f"{registry}/shop", "images_registry_insecure": True}
    for content, said in [({}, "asks for a login"), (login(registry, "wrong"), "refuses the login")]:
        logins.write_text(json.dumps(content))
        play = app.run({**variables, "images_auth_file": str(logins)})
        assert play.failure.startswith(f"images_registry: {registry} {said}; log in with podman or docker, or name")
        assert play.changed == []


def test_references_are_told_without_a_builder(app: Application, tmp_path: Path) -> None:
    nothing = without_builders(tmp_path / "bin")
    play = app.run({"tasks_from": "references"}, PATH=nothing)
    assert play.code == 0, play.failure
    failed = app.run(TO_NODES, PATH=nothing)
    assert failed.failure == (
        "images_builder: auto is not on this machine (no builder is); install podman, buildah or docker"
    )
    # Nothing is built for a reference that is told, and it is the one that is.
    assert reference(play) == reference(failed)
    assert failed.changed == []


def without_builders(folder: Path) -> str:
    """A PATH of all programs but the builders."""
    folder.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in ("podman", "buildah", "docker"):
            (folder / program.name).symlink_to(program)
    return str(folder)


@pytest.mark.usefixtures("podman")
def test_what_is_missing_is_named_before_anything_changes(app: Application, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    lost = tmp_path / "lost"
    cases: list[tuple[Item, str]] = [
        ({}, "images_registry, images_nodes, images_archives: one of them says where images go"),
        (
            {**TO_NODES, "images_builds": [{"name": "app", "context": str(lost)}]},
            f"images_builds[0] (app).context: '{lost}' is not a folder here",
        ),
        ({"images_registry": f"{nowhere}/shop"}, f"images_registry: {nowhere} does not answer ("),
    ]
    for variables, message in cases:
        play = app.run(variables)
        assert message in play.failure
        assert play.code == 2
        assert play.changed == []
    assert "start it, or set images_registry_insecure" in play.failure
    assert not (tmp_path / "storage").exists()
