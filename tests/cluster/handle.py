"""What tests hold of a cluster: how to talk to it, where its nodes are, and its components' switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from kubernetes import client

from cluster import supervision
from cluster.lifecycle import given


@dataclass(frozen=True)
class Cluster:
    kubeconfig: Path
    api: client.ApiClient

    @property
    def nodes(self) -> Mapping[str, str]:
        """The nodes' names and addresses; node ports answer there."""
        return {
            node.metadata.name: next(each.address for each in node.status.addresses if each.type == "InternalIP")
            for node in client.CoreV1Api(self.api).list_node().items
        }

    def stop(self, *components: str) -> None:
        """Stop components, such as "apiserver" or "kubelet-1" (`python -m cluster status` lists them)."""
        if outside := given():
            pytest.skip(
                f"stops {', '.join(components)}, which a cluster from outside (KUBECONFIG={outside}) does not let"
            )
        supervision.stop(*components)

    def start(self, *components: str) -> None:
        supervision.start(*components)
