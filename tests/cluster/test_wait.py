"""Module cluster_wait on a real cluster: what it waits for, in which order, and why it gives up."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import kube
from behaviour.machine import play, run_module

from cluster.images import PYTHON

Object = dict[str, Any]
NODES = {"kind": "Node", "at_least": 2}
DNS = {"kind": "Deployment", "namespace": "kube-system", "selector": "k8s-app=kube-dns"}


pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def cluster(cluster: Any) -> kube.Cluster:
    return kube.connect({"kubeconfig": str(cluster.kubeconfig)})


@pytest.fixture
def namespace(cluster: kube.Cluster) -> Iterator[str]:
    name = f"wait-{secrets.token_hex(4)}"
    kube.call(cluster, "POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    yield name
    kube.call(cluster, "DELETE", f"/api/v1/namespaces/{name}")


def wait(*steps: Object, timeout: int = 60, check: bool = False) -> Object:
    return run_module("cluster_wait", {"steps": list(steps), "timeout": timeout}, check=check)


def deploy(cluster: kube.Cluster, namespace: str, command: list[str], **container: Any) -> None:
    pod = {"containers": [{"name": "app", "image": PYTHON, "command": command, **container}]}
    template = {"metadata": {"labels": {"app": "late"}}, "spec": {**pod, "terminationGracePeriodSeconds": 0}}
    spec = {"selector": {"matchLabels": {"app": "late"}}, "template": template}
    body = {"metadata": {"name": "late"}, "spec": spec}
    kube.call(cluster, "POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", body=body)


def test_nodes_and_dns_are_there() -> None:
    result = wait(NODES, DNS)
    assert result["lines"] == [
        "Nodes: 2 of 2 Ready",
        "Deployment kube-system/coredns: 1 of 1 replica updated, 1 available",
    ]
    assert (result["finished"], result["changed"]) == (True, False)


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ({"kind": "Node", "at_least": 3}, "Nodes: 2 of 3 there"),
        (
            {"kind": "Deployment", "namespace": "kube-system", "names": ["coredns", "nothing"]},
            "Deployments of kube-system: nothing not there yet",
        ),
        (
            {"kind": "CustomResourceDefinition", "names": ["nothing.example.com"]},
            "CustomResourceDefinitions: nothing.example.com not there yet",
        ),
    ],
)
def test_what_does_not_come(step: Object, line: str) -> None:
    result = wait(NODES, step, timeout=3)
    assert result["msg"].splitlines()[1:] == [line]
    assert result["lines"] == ["Nodes: 2 of 2 Ready"]


def test_check_mode_looks_and_does_not_wait() -> None:
    result = wait(NODES, {"kind": "Node", "at_least": 3}, DNS, timeout=600, check=True)
    assert (result["finished"], result["lines"]) == (False, ["Nodes: 2 of 2 Ready", "Nodes: 2 of 3 there"])


def test_pods_that_run_and_are_not_ready_tell_their_log(cluster: kube.Cluster, namespace: str) -> None:
    never = {"exec": {"command": ["false"]}, "periodSeconds": 1}
    deploy(cluster, namespace, ["sh", "-c", "echo no way to the API server; sleep 600"], readinessProbe=never)
    result = wait({"kind": "Deployment", "namespace": namespace, "names": ["late"]}, timeout=15)
    assert "container app: runs, but is not ready" in result["msg"]
    assert "log: no way to the API server" in result["msg"]


def test_progress_is_shown_while_it_waits(cluster: kube.Cluster, namespace: str, tmp_path: Path) -> None:
    late = {"exec": {"command": ["true"]}, "initialDelaySeconds": 30}
    deploy(cluster, namespace, ["sleep", "600"], readinessProbe=late)
    steps = [NODES, {"kind": "Deployment", "namespace": namespace, "names": ["late"]}]
    lines = play(tmp_path, "cluster_wait", {"steps": steps}).splitlines()
    told = next(number for number, line in enumerate(lines) if line.startswith("TASK [sidecar.mesh.cluster_wait]"))
    about = [line for line in lines[:told] if line.startswith(f"Deployment {namespace}/late: ")]
    assert lines.index("Nodes: 2 of 2 Ready") < lines.index(about[0])
    assert about[0] != about[-1] == f"Deployment {namespace}/late: 1 of 1 replica updated, 1 available"
