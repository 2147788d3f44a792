"""Where the cluster keeps things, and its addresses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

NAME = "sidecar-mesh-cluster"
"""Of the control group that every process of the cluster is in."""

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidecar-mesh"
STATE = CACHE / "cluster"
"""All that a running cluster writes; nothing of it outlives the cluster."""
MEMORY = STATE / "memory"
"""A tmpfs: etcd's data, which wants fast disks, and the nodes' namespaces, which want a mount of their own."""
KUBECONFIG = STATE / "kubeconfig"
PROGRAMS, IMAGES = STATE / "programs", STATE / "images"
"""Links to what was built."""

BRIDGE = "smk8s"
HOST = "10.240.0.1"
"""This machine on the nodes' network; the API server listens here, and test programs may."""
PREFIX = 24
API_SERVER = f"https://{HOST}:6443"
PODS = "10.244.0.0/16"
SERVICES = "10.96.0.0/16"
DNS = "10.96.0.10"
DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Node:
    number: int

    @property
    def name(self) -> str:
        return f"node-{self.number}"

    @property
    def address(self) -> str:
        return f"10.240.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def link(self) -> str:
        """The host's end of its cable; the node's end is eth0."""
        return f"{BRIDGE}-{self.number}"

    @property
    def folder(self) -> Path:
        return STATE / self.name

    @property
    def containerd(self) -> Path:
        """containerd's socket, as the host sees it."""
        return self.folder / "run/containerd/containerd.sock"

    def inside(self, *command: object) -> list[str]:
        """A command that runs on the node."""
        network, mounts = (MEMORY / f"{self.name}.{kind}" for kind in ("net", "mnt"))
        return ["nsenter", f"--net={network}", f"--mount={mounts}", *map(str, command)]


NODES = (Node(1), Node(2))
