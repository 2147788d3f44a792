"""The nodes' start and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import yaml
from cluster import cgroups
from cluster.build import programs
from cluster.commands import Missing, install_packages, run, tried

from nodes.image import PODMAN, build
from nodes.inventory import inventory
from nodes.places import KEY, LIMIT, PROGRAMS, Fleet, Node

PACKAGES = {
    "/usr/bin/podman": "podman",
    "/usr/sbin/runc": "runc",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/ssh": "openssh-client",
    "/sbin/ip": "iproute2",
}
"""A file of each Debian package that nodes need."""

GROUP = "sidecar-mesh-nodes"
"""Of the control group that all nodes are in: else the kernel gives any process outside as much as all of them."""


def up(fleet: Fleet) -> Path:
    """Start the nodes that are not there; return their inventory."""
    if os.geteuid():
        raise Missing("Nodes need root, for privileged containers and links: run this as root")
    install_packages(PACKAGES)
    image = build()
    started = time.monotonic()
    fleet.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not KEY.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests of sidecar.mesh", "-f", KEY)
    _make_bridge(fleet)
    cgroups.make_heavy(GROUP)
    for node in fleet.nodes:
        if not running(node):
            create(node, image)
    for node in fleet.nodes:
        wait(node)
    fleet.inventory.write_text(yaml.safe_dump(inventory(fleet), sort_keys=False))
    print(f"{len(fleet.nodes)} nodes answer after {time.monotonic() - started:.0f} s", flush=True)
    return fleet.inventory


def down(fleet: Fleet) -> None:
    """End the nodes, and remove all of them."""
    for node in fleet.nodes:
        remove(node)
    tried("ip", "link", "delete", fleet.bridge)
    cgroups.remove(GROUP)
    shutil.rmtree(fleet.folder, ignore_errors=True)


def create(node: Node, image: str) -> None:
    """A new node in the place of the one that is there."""
    remove(node)
    _connect(node)
    # k3s keeps containers in a file system that must not itself be an overlay.
    data = ["/var/lib/rancher", "/var/lib/kubelet", "/var/lib/cni"]
    seen = [f"{KEY}.pub:/etc/ssh/authorized_keys:ro"]
    if programs().exists():
        seen.append(f"{programs()}:{PROGRAMS}:ro")
    run(
        *(*PODMAN, "run", "--detach", "--name", node.container, "--hostname", node.name),
        *("--privileged", "--systemd=always", "--cgroupns=private", "--pids-limit=-1"),
        *("--cgroup-parent", f"/{GROUP}"),
        *(f"--ulimit={each}={LIMIT}:{LIMIT}" for each in ("nofile", "nproc")),
        *("--network", f"ns:/run/netns/{node.namespace}", "--dns=none", "--no-hosts", "--log-driver=none"),
        *("--tmpfs", "/run", "--tmpfs", "/tmp:exec"),
        *(f"--volume={each}" for each in (*data, *seen)),
        *("--stop-signal", "SIGRTMIN+3", image, "/sbin/init-of-node"),
    )
    if extra := os.environ.get("NODES_FILES"):
        run(*PODMAN, "cp", f"{extra}/.", f"{node.container}:/")
    hosts = "".join(f"{each.address} {each.name}\n" for each in node.fleet.nodes)
    write(node, "/etc/hosts", f"127.0.0.1 localhost\n{hosts}")


def remove(node: Node) -> None:
    """A node and what it wrote. Its own end would take longer than anybody cares to wait."""
    tried(*PODMAN, "rm", "--force", "--time=0", "--volumes", node.container)
    tried("ip", "link", "delete", node.link)
    tried("ip", "netns", "delete", node.namespace)
    if KEY.exists():
        tried("ssh-keygen", "-R", node.address, "-f", node.fleet.folder / "known_hosts")


def kill(node: Node) -> None:
    """As if its power failed."""
    run(*PODMAN, "kill", "--signal", "KILL", node.container)


def start(node: Node) -> None:
    """Power is back: what was on its disk is there, and no link, rule or process."""
    tried("ip", "link", "delete", node.link)
    tried("ip", "netns", "delete", node.namespace)
    _connect(node)
    run(*PODMAN, "start", node.container)
    wait(node)


def unplug(node: Node) -> None:
    """Nobody reaches it any more."""
    run("ip", "link", "set", node.link, "down")


def plug(node: Node) -> None:
    run("ip", "link", "set", node.link, "up")


def running(node: Node) -> bool:
    state = subprocess.run(
        [*PODMAN, "inspect", "--format", "{{.State.Running}}", node.container],
        capture_output=True,
        text=True,
        check=False,
    )
    return state.stdout.strip() == "true"


def wait(node: Node, seconds: float = 60) -> None:
    """Until its SSH server answers."""
    until = time.monotonic() + seconds
    while not answers(node):
        if time.monotonic() > until:
            journal = subprocess.run(
                [*inside(node), "journalctl", "--no-pager", "-n", "30"], capture_output=True, text=True, check=False
            )
            raise RuntimeError(
                f"{node.name} of fleet {node.fleet.name} has no SSH after {seconds:.0f} s:\n{journal.stdout}"
            )
        time.sleep(0.2)


def answers(node: Node, port: int = 22) -> bool:
    """Whether a port of it does; of SSH, with what SSH says."""
    with suppress(OSError), socket.create_connection((node.address, port), timeout=2) as connection:
        connection.settimeout(2)
        return port != 22 or connection.recv(4) == b"SSH-"
    return False


def inside(node: Node) -> list[str]:
    """The words before a command that runs on the node, by another way than SSH."""
    return [*PODMAN, "exec", "--interactive", node.container]


def on(node: Node, *command: object) -> str:
    """The output of a command on the node, as root."""
    return run(*inside(node), *command)


def write(node: Node, path: str, text: str) -> None:
    """Write a file on the node."""
    done = subprocess.run([*inside(node), "tee", path], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _make_bridge(fleet: Fleet) -> None:
    if not tried("ip", "link", "show", fleet.bridge):
        run("ip", "link", "add", fleet.bridge, "type", "bridge")
        run("ip", "address", "add", f"{fleet.host}/24", "dev", fleet.bridge)
        run("ip", "link", "set", fleet.bridge, "up")


def _connect(node: Node) -> None:
    """A network of its own with a cable. The way out leads to this machine, which forwards nothing."""
    run("ip", "netns", "add", node.namespace)
    run("ip", "link", "add", node.link, "type", "veth", "peer", "eth0", "netns", node.namespace)
    run("ip", "link", "set", node.link, "master", node.fleet.bridge, "up")
    for command in (
        "link set lo up",
        "link set eth0 up",
        f"address add {node.address}/24 dev eth0",
        f"route add default via {node.fleet.host}",
    ):
        run("ip", "-n", node.namespace, *command.split())
