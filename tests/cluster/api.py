"""What the cluster's own start asks of the API server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config, dynamic


@contextmanager
def connected(kubeconfig: Path) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(kubeconfig)) as api:
        yield api


def answers(api: client.ApiClient) -> bool:
    """Whether the API server does."""
    return bool(client.VersionApi(api).get_code(_request_timeout=5))


def apply(api: client.ApiClient, manifests: Path) -> None:
    """Apply the objects of a file, as `kubectl apply --server-side` would."""
    resources = dynamic.DynamicClient(api)
    for manifest in yaml.safe_load_all(manifests.read_text()):
        kind = resources.resources.get(api_version=manifest["apiVersion"], kind=manifest["kind"])
        kind.server_side_apply(
            manifest,
            namespace=manifest["metadata"].get("namespace"),
            field_manager="sidecar-mesh",
            force_conflicts=True,
        )


def register(api: client.ApiClient, name: str, pods: str) -> None:
    """Register a node before its kubelet does, with the pod addresses that its CNI plugin gives."""
    spec = {"podCIDR": pods, "podCIDRs": [pods]}
    node: Any = {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": name}}, "spec": spec}
    try:
        client.CoreV1Api(api).create_node(node)
    except client.ApiException as problem:
        if problem.status != 409:  # it is there
            raise


def waiting(api: client.ApiClient) -> list[str]:
    """What is not ready yet: nodes, and pods of the system."""
    core: Any = client.CoreV1Api(api)
    nodes = core.list_node().items
    pods = core.list_namespaced_pod("kube-system").items
    return [thing.metadata.name for thing in [*nodes, *pods] if not _is_ready(thing)] if nodes and pods else ["DNS"]


def _is_ready(thing: Any) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in thing.status.conditions or [])


def wait_for(what: str, probe: Callable[[], object], seconds: float, *, help_at: str = "") -> None:
    """Wait until a probe answers with something true; an error is a no that the message shows in the end."""
    until = time.monotonic() + seconds
    while True:
        try:
            if probe():
                return
            reason = ""
        except (client.ApiException, urllib3.exceptions.HTTPError, OSError) as problem:
            reason = f" ({problem})"
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not after {seconds:.0f} s{reason}. {help_at}".rstrip())
        time.sleep(0.5)
