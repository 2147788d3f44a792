"""What is made for Kubernetes, on a real one: it admits every object, and policies let pass what is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.render import rendered
from golden.cases import everything, model_of
from kubernetes import client
from kubernetes.dynamic import DynamicClient

from cluster import images
from cluster.commands import run
from cluster.handle import Cluster
from cluster.test_cluster import deployment, eventually, execute, is_ready

Data = dict[str, Any]

CASES = {name: data for name, data in everything().items() if data.get("mesh_engine") == "kubernetes"}
NEEDS_MORE = ("on-nodes",)
"""Workloads that a restricted namespace does not admit, by the choice of their authors."""


def objects(files: dict[str, str], folder: str = "manifests") -> Iterator[Data]:
    """All objects that a kustomization leads to, as `kubectl apply -k` finds them."""
    for name in yaml.safe_load(files[f"{folder}/kustomization.yaml"])["resources"]:
        path = f"{folder}/{name}"
        if path in files:
            yield yaml.safe_load(files[path])
        else:
            yield from objects(files, path)


def apply(cluster: Cluster, found: Iterator[Data]) -> None:
    known = DynamicClient(cluster.api)
    for item in found:
        kind = known.resources.get(api_version=item["apiVersion"], kind=item["kind"])
        known.server_side_apply(kind, item, field_manager="test", namespace=item["metadata"]["namespace"])


@pytest.mark.parametrize("name", CASES)
def test_kubectl_accepts_every_case(cluster: Cluster, namespace: str, name: str, tmp_path: Path) -> None:
    policy = {**CASES[name].get("mesh_network_policy", {}), "kind": "kubernetes"}
    files = rendered(model_of({**CASES[name], "mesh_namespace": namespace, "mesh_network_policy": policy}))
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    said = run(
        cluster.kubectl,
        "apply",
        "--dry-run=server",
        "-k",
        tmp_path / "manifests",
        env={"KUBECONFIG": cluster.kubeconfig},
    )
    assert len(said.splitlines()) == sum(
        not path.endswith("kustomization.yaml") for path in files if path.startswith("manifests/")
    )


@pytest.mark.parametrize("name", CASES)
def test_a_restricted_namespace_admits_its_pods(cluster: Cluster, namespace: str, name: str) -> None:
    """A Deployment is admitted whatever its pods are."""
    data = {**CASES[name], "mesh_namespace": namespace}
    core = client.CoreV1Api(cluster.api)
    for item in objects(rendered(model_of(data))):
        workload = item["metadata"]["name"]
        if item["kind"] == "Deployment" and workload not in NEEDS_MORE:
            template = item["spec"]["template"]
            # Names that the case takes for granted.
            spec = {**template["spec"], "serviceAccountName": "default"}
            spec.pop("priorityClassName", None)
            pod = {"metadata": {"name": workload, "labels": template["metadata"]["labels"]}, "spec": spec}
            core.create_namespaced_pod(namespace, pod, dry_run="All")


SERVER = """
import http.server, os
os.chdir("/")
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind=os.environ["BIND_ADDRESS"])
"""
CALLS = """
import concurrent.futures, itertools, json, socket, sys
addresses, ports = map(json.loads, sys.argv[1:])
edges = [*itertools.product(addresses, ports)]
def opens(edge):
    try:
        socket.create_connection((addresses[edge[0]], edge[1]), 3).close()
    except OSError:
        return False
    return True
with concurrent.futures.ThreadPoolExecutor(len(edges)) as pool:
    print(json.dumps([edge for edge, is_open in zip(edges, pool.map(opens, edges)) if is_open]))
"""
ASKS = """
import os, sys, urllib.request
print(urllib.request.urlopen(f"http://{os.environ.get(sys.argv[1], sys.argv[1])}/", timeout=9).status)
"""
MESH = """
- {name: shop, port: 8081, upstreams: [{service: stock, port: 9001}, {service: plain, port: 9002}]}
- {name: stock, port: 8081, sidecar: {port: 80}, allow_from: [my-client]}
- {name: plain, port: 8081, sidecar: false}
- {name: alone, port: 8081}
"""
EDGES = {("shop", "stock", 80), ("shop", "plain", 8081), ("front", "shop", 8786)}
PORTS = (80, 443, 8000, 8081, 8786, 9901, 9902)


def mesh(namespace: str, kind: str) -> Data:
    pod = {"command": ["python", "-c", SERVER], "security_context": {"runAsUser": 10001}}
    services = [{**service, "image": images.PYTHON, "pod": pod} for service in yaml.safe_load(MESH)]
    front = {
        "name": "front",
        "listeners": [{"port": 8000}],
        "routes": [{"prefix": "/", "service": "shop"}],
        "expose": "ClusterIP",
        "image": images.envoy(images.NEWEST),
    }
    return model_of(
        {
            "mesh_engine": "kubernetes",
            "mesh_namespace": namespace,
            "mesh_envoy_image": images.envoy(images.NEWEST),
            "mesh_services": services,
            "mesh_front_proxies": [front],
            "mesh_network_policy": {"kind": kind},
        }
    )


def opened(cluster: Cluster, namespace: str, pod: str, addresses: dict[str, str]) -> set[tuple[str, int]]:
    said = execute(cluster, namespace, pod, "python", "-c", CALLS, json.dumps(addresses), json.dumps(PORTS))
    return set(map(tuple, yaml.safe_load(said)))


def test_each_edge_is_open_and_no_other(cluster: Cluster, namespace: str) -> None:
    """From every application, from a client that is named, and from a stranger, to every port of every pod."""
    core, apps = client.CoreV1Api(cluster.api), client.AppsV1Api(cluster.api)
    names = {service["name"] for service in yaml.safe_load(MESH)} | {"front"}
    groups = {group.name for group in client.ApisApi(cluster.api).get_api_versions().groups}
    apply(cluster, objects(rendered(mesh(namespace, "cilium" if "cilium.io" in groups else "kubernetes"))))
    for name in ("my-client", "stranger"):
        apps.create_namespaced_deployment(namespace, deployment(name))

    def ready() -> dict[str, Any] | None:
        pods = core.list_namespaced_pod(namespace).items
        found = {pod.metadata.labels["app"]: pod for pod in pods if is_ready(pod)}
        return found if found.keys() == names | {"my-client", "stranger"} else None

    pods = eventually(ready, 240)
    addresses = {name: pods[name].status.pod_ip for name in sorted(names)}

    def reached(caller: str) -> set[tuple[str, int]]:
        others = {name: address for name, address in addresses.items() if name != caller}
        return opened(cluster, namespace, pods[caller].metadata.name, others)

    open_to_all = {("front", 8000), *((name, 9902) for name in names - {"plain"})}
    eventually(lambda: reached("stranger") == open_to_all, 60)
    assert reached("my-client") == {*open_to_all, ("stock", 80)}
    applications = sorted(names - {"front"})
    found = {(caller, callee, port) for caller in applications for callee, port in reached(caller)}
    assert found == {edge for edge in EDGES if edge[0] != "front"}
    # The edges that are open serve: through sidecars, to a service without one, and through the front.
    for caller, address in (("shop", "UPSTREAM_STOCK"), ("shop", "UPSTREAM_PLAIN"), ("stranger", "front:8000")):
        asks = ("python", "-c", ASKS, address)
        pod = pods[caller].metadata.name
        eventually(lambda pod=pod, asks=asks: execute(cluster, namespace, pod, *asks).strip() == "200", 60)
