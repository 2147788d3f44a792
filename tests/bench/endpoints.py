"""How soon requests reach a pod that Kubernetes calls ready, on the tests' cluster: by the control plane, and by DNS.

A front proxy and a service; the service goes from one pod to two, again and again, under requests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from behaviour.load import Load
from behaviour.machine import wait_until
from cluster import api, control_plane, images
from cluster.handle import Cluster
from cluster.mesh import Mesh, watched
from cluster.relay import HTTP, front, service
from kubernetes import client

from bench.apply import kubectl_and_cluster
from bench.measuring import Row, share

NAME = "service"
PODS, PODS_OF_DNS = 20, 4
"""How many pods come, one after the other."""
READY_SECONDS, USED_SECONDS, GONE_SECONDS = 60, 30, 120
LATELY = 200
"""Requests."""
LIMIT_MS = 100


def rows() -> list[Row]:
    _kubectl, kubeconfig = kubectl_and_cluster()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="sidecar-mesh-bench-")))
        cluster = Cluster(Path(kubeconfig), stack.enter_context(api.connected(Path(kubeconfig))))
        mesh = Mesh(cluster, stack.enter_context(cluster.new_namespace()), folder)
        mesh.services = [{**service(NAME), "replicas": 1}]
        mesh.fronts = [front()]
        mesh.fronts[0] |= {"replicas": 1, "routes": [{"prefix": "/", "service": NAME}]}
        mesh.settings = {"mesh_name": "endpoints", "mesh_envoy_image": images.envoy(images.NEWEST)}
        asked = _times(mesh, PODS_OF_DNS)
        mesh.settings |= {
            "mesh_config_delivery": "ads",
            "mesh_control_plane": {"image": control_plane.image(folder)},
        }
        sent = _times(mesh, PODS)
    what = "A pod called ready to the first request that reaches it, by the control plane"
    return [
        Row(f"{what}, p50", share(sent, 0.5), "DNS", share(asked, 0.5), unit="ms"),
        Row(f"the same, slowest of {PODS}", sent[-1], "the limit", LIMIT_MS, 1, "ms"),
    ]


def _times(mesh: Mesh, count: int) -> list[float]:
    """Milliseconds, shortest first."""
    mesh.must_run()
    mesh.settle()
    port, hosts = mesh.node_port(HTTP), list(mesh.cluster.nodes.values())[:1]
    with Load(port, kept=6, new=0, pause=0.01, hosts=hosts) as load, _called_ready(mesh) as ready:
        for _pod in range(count):
            known = set(ready)
            _scale(mesh, 2)
            wait_until(lambda known=known: set(ready) - known, "a second pod is ready", READY_SECONDS)
            (name,) = set(ready) - known
            wait_until(lambda name=name: _answers(load, name), f"requests reach {name}", USED_SECONDS)
            _scale(mesh, 1)
            wait_until(lambda: len(mesh.pods(NAME)) == 1, "one of them is about to go", GONE_SECONDS)
        load.report.must_be_whole()
    used = {name: load.began + (load.report.first(name) or 0) for name in ready}
    return sorted(1000 * (used[name] - since) for name, since in ready.items())


def _answers(load: Load, name: str) -> bool:
    """Whether a pod does. Only lately, as to look through all that there were would take the clients' time."""
    return any(answer.hostname == name for answer in load.report.answers[-LATELY:])


def _scale(mesh: Mesh, replicas: int) -> None:
    apps = client.AppsV1Api(mesh.cluster.api)
    apps.patch_namespaced_deployment_scale(NAME, mesh.namespace, {"spec": {"replicas": replicas}})


@contextlib.contextmanager
def _called_ready(mesh: Mesh) -> Iterator[dict[str, float]]:
    """When EndpointSlices first said so of a pod; without those that were ready before."""
    before, since = {pod.name for pod in mesh.pods(NAME)}, dict[str, float]()

    def note(event: dict[str, Any]) -> None:
        now = time.time()
        for name in set(_ready(event["object"])) - before - set(since):
            since[name] = now

    listed = client.DiscoveryV1Api(mesh.cluster.api).list_namespaced_endpoint_slice
    with watched(note, listed, mesh.namespace, label_selector=f"kubernetes.io/service-name={NAME}"):
        yield since


def _ready(endpoint_slice: Any) -> Iterator[str]:
    for endpoint in endpoint_slice.endpoints or []:
        if endpoint.conditions.ready:
            yield endpoint.target_ref.name
