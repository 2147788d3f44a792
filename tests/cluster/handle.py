"""What tests hold of a cluster: how to talk to it, where its nodes are, and its components' switches."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from cluster import supervision
from cluster.lifecycle import given
from cluster.places import PROGRAMS


@dataclass(frozen=True)
class Cluster:
    kubeconfig: Path
    api: client.ApiClient

    @property
    def nodes(self) -> Mapping[str, str]:
        """The nodes' names and addresses; node ports answer there."""
        core: Any = client.CoreV1Api(self.api)
        return {
            node.metadata.name: next(each.address for each in node.status.addresses if each.type == "InternalIP")
            for node in core.list_node().items
        }

    @property
    def kubectl(self) -> str:
        """The program."""
        found = shutil.which("kubectl", path=f"{PROGRAMS}:{os.environ['PATH']}")
        return found or pytest.skip("kubectl is not on PATH")

    @contextmanager
    def new_namespace(self) -> Iterator[str]:
        """A namespace that admits restricted pods only; it goes with all that is in it."""
        core = client.CoreV1Api(self.api)
        name = f"test-{secrets.token_hex(4)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        core.create_namespace({"metadata": {"name": name, "labels": labels}})
        yield name
        core.delete_namespace(name)

    def stop(self, *components: str) -> None:
        """Stop components, such as "apiserver" or "kubelet-1" (`python -m cluster status` lists them)."""
        if outside := given():
            pytest.skip(
                f"stops {', '.join(components)}, which a cluster from outside (KUBECONFIG={outside}) does not let"
            )
        supervision.stop(*components)

    def start(self, *components: str) -> None:
        supervision.start(*components)
