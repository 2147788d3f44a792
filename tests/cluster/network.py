"""The nodes as the kernel sees them: namespaces, cables, and the routes between nodes, pods and this machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from cluster.commands import run, tried
from cluster.places import BRIDGE, HOST, MEMORY, NODES, PREFIX, SERVICES, STATE, Node

OWN_FOLDERS = ("/run", "/var/log", "/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet")
"""Where containerd, kubelet, kube-proxy and CNI plugins write: each node has these for itself, below its own folder."""
SYSTEM = {
    # Each kubelet, containerd and many a program in a pod watches files.
    "fs.inotify.max_user_instances": "8192",
    # What kubelets set.
    "vm.overcommit_memory": "1",
    "vm.panic_on_oom": "0",
    "kernel.panic": "10",
    "kernel.panic_on_oops": "1",
    "kernel.keys.root_maxkeys": "1000000",
    "kernel.keys.root_maxbytes": "25000000",
}
BEFORE = STATE / "sysctl.conf"
"""What those settings of the whole machine were."""


def make() -> None:
    """Make what is not there."""
    MEMORY.mkdir(parents=True, exist_ok=True)
    if not MEMORY.is_mount():
        run("mount", "-t", "tmpfs", "-o", "mode=700", BRIDGE, MEMORY)
        # Namespaces can only be kept below a mount that no other namespace sees.
        run("mount", "--make-private", MEMORY)
    if not BEFORE.exists():
        BEFORE.write_text("".join(f"{name} = {_sysctl(name).read_text()}" for name in SYSTEM))
    for name, value in SYSTEM.items():
        _sysctl(name).write_text(value)
    if not tried("ip", "link", "show", BRIDGE):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "address", "add", f"{HOST}/{PREFIX}", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
    for node in NODES:
        if not tried("ip", "link", "show", node.link):
            _make_namespaces(node)
            _connect(node)


def remove() -> None:
    """Remove it all; processes of the nodes have ended."""
    for node in NODES:
        tried("ip", "link", "delete", node.link)
    tried("ip", "link", "delete", BRIDGE)
    for kept in [*MEMORY.glob("*.net"), *MEMORY.glob("*.mnt")]:
        tried("umount", kept)
    if MEMORY.is_mount():
        run("umount", MEMORY)
    for own in OWN_FOLDERS:
        with suppress(OSError):  # not empty: it was there before
            Path(own).rmdir()
    if BEFORE.exists():
        for line in BEFORE.read_text().splitlines():
            name, _equals, value = line.partition(" = ")
            _sysctl(name).write_text(value)


def _make_namespaces(node: Node) -> None:
    network, mounts = MEMORY / f"{node.name}.net", MEMORY / f"{node.name}.mnt"
    for file, kind in ((network, "--net"), (mounts, "--mount")):
        file.touch()
        run("unshare", f"{kind}={file}", "true")
    # Volumes that the kubelet mounts have to show up in containers, as on a machine of its own.
    run(*node.inside("mount", "--make-rshared", "/"))
    for own in OWN_FOLDERS:
        folder = node.folder / Path(own).name
        for made in (folder, Path(own)):
            made.mkdir(parents=True, exist_ok=True)
        run(*node.inside("mount", "--bind", folder, own))


def _connect(node: Node) -> None:
    run("ip", "link", "add", node.link, "type", "veth", "peer", "eth0", "netns", MEMORY / f"{node.name}.net")
    run("ip", "link", "set", node.link, "master", BRIDGE, "up")
    run("ip", "route", "replace", node.pods, "via", node.address)
    for command in (
        "ip link set lo up",
        "ip link set eth0 up",
        f"ip address add {node.address}/{PREFIX} dev eth0",
        # Never used, as kube-proxy comes first; but without one the kernel would refuse to begin.
        f"ip route add {SERVICES} via {HOST}",
        # What is elsewhere cannot be reached, and pods learn it at once.
        "ip route add unreachable default metric 4096",
        "sysctl -q -w net.ipv4.ip_forward=1",
        *(f"ip route add {other.pods} via {other.address}" for other in NODES if other != node),
    ):
        run(*node.inside(*command.split()))
    if node.number == 1:
        run("ip", "route", "replace", SERVICES, "via", node.address)


def _sysctl(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))
