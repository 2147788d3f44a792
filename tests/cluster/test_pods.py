"""What an inventory says of pods and of the way to a front proxy, seen at pods that run, on two nodes or more."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from behaviour.machine import wait_until
from kubernetes import client

from cluster import images
from cluster.handle import Cluster
from cluster.mesh import Mesh, Pod
from cluster.test_cluster import execute

Item = dict[str, Any]

ENVOY = images.envoy(images.NEWEST)
PORT = 8000
START_SECONDS = 4
SECONDS = 60
"""The longest that a kubelet, and whoever hears of it, may take to follow a probe."""
APPLICATION = """
import http.server, json, os, pathlib, signal, threading, time

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
data, started = pathlib.Path("/data"), pathlib.Path("/data/started")
started.unlink(missing_ok=True)
(data / "ready").touch()
threading.Timer(float(os.environ["START_SECONDS"]), started.touch).start()

class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        told = {name: os.environ.get(name) for name in ("GREETING", "TOKEN", "PASSWORD", "POD_NAME")}
        page = pathlib.Path("/etc/shop/page").read_text()
        text = json.dumps({**told, "page": page, "client": self.headers["x-forwarded-for"]}).encode()
        self.send_response(200)
        self.send_header("hostname", os.environ["POD_NAME"])
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

server = http.server.ThreadingHTTPServer((os.environ["BIND_ADDRESS"], int(os.environ["PORT"])), Answer)

def deaf():
    while not (data / "deaf").exists():
        time.sleep(0.1)
    (data / "deaf").unlink()
    server.shutdown()
    server.server_close()

threading.Thread(target=deaf, daemon=True).start()
server.serve_forever()
time.sleep(3600)
"""
"""Says what it was given. It listens at once and counts as started some seconds later; it is not ready without a file,
and listens no more, though it lives, when there is another."""

CHECK = {"name": "The shop answers", "url": "http://front/", "body": "welcome", "service": "shop"}


def shop(**more: Any) -> Item:
    pod = {
        "command": ["python", "-c", APPLICATION],
        "security_context": {"runAsUser": 10001},
        "stop_timeout": "1s",
        "env_from": [{"configMapRef": {"name": "shop"}}, {"secretRef": {"name": "shop"}}],
        "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "word"}}}],
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "pages", "configMap": {"name": "shop-pages"}}],
        "volume_mounts": [{"name": "data", "mountPath": "/data"}, {"name": "pages", "mountPath": "/etc/shop"}],
    }
    there = {"exec": {"command": ["test", "-e", "/data/ready"]}, "period": "1s", "failure_threshold": 1}
    probes = {
        "startup": {"exec": {"command": ["test", "-e", "/data/started"]}, "period": "1s", "failure_threshold": 60},
        "readiness": there,
        "liveness": {"tcp": True, "period": "1s", "failure_threshold": 2},
    }
    return {
        "name": "shop",
        "image": images.PYTHON,
        "port": 8081,
        "replicas": 2,
        "environment": {"START_SECONDS": str(START_SECONDS)},
        "probes": probes,
        "pod": {**pod, **more},
    }


def front(**more: Any) -> Item:
    routes = [{"prefix": "/", "service": "shop", "idempotent": True}]
    return {"name": "front", "listeners": [{"port": PORT}], "routes": routes, "expose": "NodePort", **more}


@contextlib.contextmanager
def started(cluster: Cluster, namespace: str, folder: Path, *fronts: Item, **pod: Any) -> Iterator[Mesh]:
    """The mesh, and beside it what its inventory only names."""
    core = client.CoreV1Api(cluster.api)
    for name, data in (("shop", {"GREETING": "welcome"}), ("shop-pages", {"page": "as mounted"})):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name}, "data": data})
    secret = {"metadata": {"name": "shop"}, "stringData": {"TOKEN": "open sesame", "word": "swordfish"}}
    core.create_namespaced_secret(namespace, secret)
    mesh = Mesh(cluster, namespace, folder)
    mesh.services, mesh.fronts = [shop(**pod)], [*fronts]
    mesh.settings = {"mesh_envoy_image": ENVOY, "mesh_dns": {"refresh_rate": "1s", "jitter": "0.1s", "ttl": "5s"}}
    mesh.must_run()
    mesh.settle()
    yield mesh


def ask(address: str, port: int) -> Item:
    """What the shop says at an address, and ``from``: who asked; empty where nobody answers."""
    connection = http.client.HTTPConnection(address, port, timeout=3)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.connect()
        asking = connection.sock.getsockname()[0]
        connection.request("GET", "/")
        answer = connection.getresponse()
        if answer.status == 200:
            return {**json.loads(answer.read()), "from": asking}
    return {}


def answering(mesh: Mesh) -> set[str]:
    """Which pods of the shop answer twenty requests in a row, with an empty name if one of these is not answered."""
    address = next(iter(mesh.pods("front"))).node
    found = [ask(mesh.cluster.nodes[address], mesh.node_port(PORT)) for _again in range(20)]
    return {item.get("POD_NAME", "") for item in found}


def names(pods: set[Pod]) -> set[str]:
    return {pod.name for pod in pods}


def test_probes_environment_and_volumes_of_an_application(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with started(cluster, namespace, tmp_path, front()) as mesh:
        pods = names(mesh.pods("shop"))
        assert len(pods) == 2
        wait_until(lambda: answering(mesh) == pods, "both answer", SECONDS)
        said = ask(mesh.cluster.nodes[next(iter(mesh.pods("front"))).node], mesh.node_port(PORT))
        given = {name: said[name] for name in ("GREETING", "TOKEN", "PASSWORD", "page")}
        assert given == {"GREETING": "welcome", "TOKEN": "open sesame", "PASSWORD": "swordfish", "page": "as mounted"}
        # Its readiness probe would have passed at once, had it not waited for the one of its start.
        for pod in mesh.all_pods():
            if pod.metadata.labels["app"] == "shop":
                began = pod.status.container_statuses[0].state.running.started_at
                ready = next(each.last_transition_time for each in pod.status.conditions if each.type == "Ready")
                assert (ready - began).total_seconds() >= START_SECONDS - 1, "Kubernetes' times are whole seconds"

        one, other = sorted(pods)
        execute(cluster, namespace, one, "rm", "/data/ready")
        wait_until(lambda: answering(mesh) == {other}, "who is not ready is not asked", SECONDS)
        execute(cluster, namespace, one, "touch", "/data/ready")
        wait_until(lambda: answering(mesh) == pods, "it is asked again", SECONDS)

        execute(cluster, namespace, one, "touch", "/data/deaf")
        wait_until(lambda: {p.name: p.restarts for p in mesh.pods("shop")} == {one: 1, other: 0}, "a restart", SECONDS)
        wait_until(lambda: answering(mesh) == pods, "it serves again", SECONDS)


@pytest.mark.alone
def test_pods_run_where_the_inventory_says(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    """A node for the shop alone: others do not tolerate it, and the shop goes nowhere else."""
    core, node = client.CoreV1Api(cluster.api), list(cluster.nodes)[-1]
    taints = core.read_node(node).spec.taints or []
    mine = {"key": "example.com/only", "value": "shop", "effect": "NoSchedule"}
    core.patch_node(node, {"metadata": {"labels": {"example.com/disk": "fast"}}, "spec": {"taints": [*taints, mine]}})
    try:
        where = {
            "node_selector": {"example.com/disk": "fast"},
            "tolerations": [{"key": "example.com/only", "operator": "Equal", "value": "shop"}],
        }
        with started(cluster, namespace, tmp_path, front(replicas=2), **where) as mesh:
            assert [pod.node for pod in mesh.pods("shop")] == [node, node]
            assert node not in {pod.node for pod in mesh.pods("front")}
            # Without the toleration there is no place for a new pod; those that are there serve on.
            del mesh.service("shop")["pod"]["tolerations"]
            before = mesh.pods()
            play = mesh.run(sidecars_timeout=20)
            assert play.code
            assert "untolerated taint" in play.failure, play.failure
            assert mesh.pods() == before
            assert answering(mesh) == names(mesh.pods("shop"))
    finally:
        core.patch_node(node, {"metadata": {"labels": {"example.com/disk": None}}, "spec": {"taints": taints}})


def test_who_asks_is_known_where_traffic_stays_on_its_node(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with started(cluster, namespace, tmp_path, front()) as mesh:
        (pod,) = mesh.pods("front")
        here = cluster.nodes[pod.node]
        others = [address for address in cluster.nodes.values() if address != here]
        port = mesh.node_port(PORT)
        for address in others:
            said = wait_until(lambda address=address: ask(address, port), f"{address} passes it on", SECONDS)
            assert said["client"] != said["from"], "a node that passes it on asks itself"

        with mesh.unmoved():
            mesh.front()["expose"] = {"type": "NodePort", "external_traffic_policy": "Local"}
            mesh.must_run()
            assert mesh.node_port(PORT) == port
            wait_until(lambda: not any(ask(address, port) for address in others), "no other node answers", SECONDS)
            said = wait_until(lambda: ask(here, port), "its own node does", SECONDS)
            assert said["client"] == said["from"]
        # Who verifies it asks at the right node, too.
        assert "node port" in mesh.must_run("verify", mesh_checks=[CHECK]).output


def test_a_front_proxy_opens_ports_of_its_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """On each node that runs it, and one after the other when it is replaced."""
    with cluster.new_namespace() as namespace:
        core = client.CoreV1Api(cluster.api)
        with socket.create_server(("0.0.0.0", 0)) as free:
            port = free.getsockname()[1]
        on_nodes = front(replicas=2, listeners=[{"port": port}], expose={"host_ports": True})
        core.patch_namespace(namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "privileged"}}})
        with started(cluster, namespace, tmp_path, on_nodes) as mesh:
            nodes = {pod.node: cluster.nodes[pod.node] for pod in mesh.pods("front")}
            assert len(nodes) == 2, "a node has one replica"
            assert core.read_namespaced_service("front", namespace).spec.type == "ClusterIP"
            for address in nodes.values():
                said = wait_until(lambda address=address: ask(address, port), f"{address} answers", SECONDS)
                assert said["client"] == said["from"]

            assert "host port" in mesh.must_run("verify", mesh_checks=[CHECK]).output
            before = mesh.pods("front")
            with some_node_answers([*cluster.nodes.values()], port):
                mesh.front()["pod"] = {"annotations": {"example.com/new": "true"}}
                mesh.must_run()
                mesh.settle()
            after = mesh.pods("front")
            assert len({pod.node for pod in after}) == 2
            assert not after & before


@contextlib.contextmanager
def some_node_answers(addresses: list[str], port: int) -> Iterator[None]:
    """Fails if at any time within the block there was none."""
    ends = threading.Event()

    def silent() -> list[float]:
        found = []
        while not ends.wait(0.1):
            if not any(ask(address, port) for address in addresses):
                found.append(time.time())
        return found

    with ThreadPoolExecutor() as pool:
        watch = pool.submit(silent)
        try:
            yield
        finally:
            ends.set()
    assert not watch.result()
