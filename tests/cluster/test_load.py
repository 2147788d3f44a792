"""No request is lost, whatever is done to a mesh on Kubernetes: load on keep-alive and on new connections while it is.

One mesh, front proxy → service-a → service-b, two pods each, goes through it all in this order. Times of DNS, and so of
draining, are the defaults.
"""

from __future__ import annotations

import copy
import http.client
import os
import signal
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from behaviour.machine import wait_until
from kubernetes import client

from cluster.mesh import Mesh, Pod, Watch

Item = dict[str, Any]

HTTP, HTTPS = 8080, 8443
FOLLOW_SECONDS = 3.0
STOPPED_SECONDS = 120.0
OLD_ENVOY, NEW_ENVOY = "docker.io/envoyproxy/envoy:v1.36.2", "docker.io/envoyproxy/envoy:v1.40.0"
EXPRESS = "localhost/sidecar-mesh/express:1"


def express(name: str, *upstreams: str) -> Item:
    """A service that greets with its name and, below that, with the answers of its upstreams."""
    called = [f"http://$(UPSTREAM_{upstream.upper().replace('-', '_')})" for upstream in upstreams]
    return {
        "name": name,
        "image": EXPRESS,
        "environment": {"SERVICE_NAME": name, **({"UPSTREAMS": ",".join(called)} if called else {})},
        "port": 8081,
        "replicas": 2,
        "upstreams": [{"service": upstream, "port": 8788, "idempotent": True} for upstream in upstreams],
    }


def front() -> Item:
    return {
        "name": "front",
        "replicas": 2,
        "listeners": [{"port": HTTP}, {"port": HTTPS, "tls": {"secret": "front-tls"}}],
        "routes": [{"prefix": "/", "service": "service-a", "idempotent": True}],
        "expose": "NodePort",
    }


@pytest.fixture(scope="module")
def running(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with cluster.namespace() as namespace:
        mesh = Mesh(cluster.kubeconfig, namespace, Path(os.environ.get("F_STATE") or tmp_path_factory.mktemp("mesh")))
        mesh.services = [express("service-a", "service-b"), express("service-b")]
        mesh.fronts = [front()]
        mesh.settings = {"mesh_name": "load", "mesh_envoy_image": OLD_ENVOY, "images_builds": []}
        mesh.must_run()
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    """The mesh as the test before left it, with two pods of each workload at least."""
    few = [workload for workload in [*running.services, *running.fronts] if workload["replicas"] < 2]
    for workload in few:
        workload["replicas"] = 2
    if few:
        running.must_run()
    running.settle()
    return running


def ask(pod: Pod, path: str) -> tuple[int, str]:
    """Status and body of an answer of one pod of a front proxy."""
    connection = http.client.HTTPConnection(pod.address, HTTP, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def test_route_cluster_and_upstream(mesh: Mesh) -> None:
    """Running Envoys take them; every pod has what it had before, and the traffic follows within three seconds."""
    fronts = mesh.pods("front")
    changes = {
        "route": lambda: mesh.front()["routes"].insert(0, {"prefix": "/b", "service": "service-b"}),
        "cluster": lambda: mesh.service("service-b").update(lb_policy="least_request", connect_timeout="2s"),
        "upstream": lambda: mesh.service("service-a")["upstreams"][0].update(timeout="7s", retries=4),
    }
    with mesh.load("route, cluster and upstream change"), mesh.unmoved():
        for name, change in changes.items():
            change()
            with (
                mesh.config_writes() as writes,
                Watch(fronts, lambda pod: "service-a" not in ask(pod, "/b")[1]) as watch,
            ):
                play = mesh.must_run()
                followed = watch.wait()
            assert writes
            print(f"{name}: {followed - writes[-1]:.1f} s after the last of {len(writes)} writes, {play.changed}")
            assert name != "route" or followed - writes[-1] < FOLLOW_SECONDS


def test_scale(mesh: Mesh) -> None:
    """A third pod gets its share; those that leave are not missed."""
    everything = [*mesh.services, *mesh.fronts]
    with mesh.load("scale 2 → 3 → 1") as load:
        for replicas in (3, 1):
            for workload in everything:
                workload["replicas"] = replicas
            mesh.must_run()
            if replicas == 3:
                names = {pod.name for pod in mesh.pods("service-a")}
                load.wait_until(lambda report: set(report.hostnames()) >= names, f"answers of {names}")  # noqa: B023
    assert {pod.name for pod in mesh.pods("service-a")} == set(load.report.hostnames(load.now - 1))
    assert len(mesh.pods()) == len(everything)


def test_update_of_the_application(mesh: Mesh) -> None:
    before = mesh.pods()
    with mesh.load("update of the applications"):
        for service in mesh.services:
            service["environment"]["SERVICE_NAME"] += " 2"
        mesh.must_run()
    assert not mesh.pods() & (before - mesh.pods("front"))
    assert "service-a 2" in ask(next(iter(mesh.pods("front"))), "/")[1]


@pytest.mark.parametrize("image", [NEW_ENVOY, OLD_ENVOY])
def test_update_of_envoy(mesh: Mesh, image: str) -> None:
    before = mesh.pods()
    with mesh.load(f"update of Envoy to {image.rpartition(':')[2]}"):
        mesh.settings["mesh_envoy_image"] = image
        mesh.must_run()
    assert not mesh.pods() & before


def test_static_configuration(mesh: Mesh) -> None:
    """Whose every change replaces pods."""
    mesh.settings["mesh_config_delivery"] = "static"
    with mesh.load("config_delivery static, and a change of it"):
        mesh.must_run()
        before = mesh.pods("front")
        mesh.front()["routes"].insert(0, {"prefix": "/static", "service": "service-b"})
        mesh.must_run()
    assert not mesh.pods("front") & before
    assert "service-a" not in ask(next(iter(mesh.pods("front"))), "/static")[1]
    del mesh.settings["mesh_config_delivery"]
    mesh.must_run()


def test_renewal_of_a_certificate(mesh: Mesh) -> None:
    port = mesh.node_port(HTTPS)

    def served() -> set[str]:
        return {ssl.get_server_certificate((node, port), timeout=10) for node in mesh.nodes() for _round in range(3)}

    (old,) = served()
    with mesh.load("renewal of a certificate", port=HTTPS, tls=True), mesh.unmoved():
        mesh.must_run(certificates_renew_days=400)
        written = time.monotonic()
        wait_until(lambda: old not in served(), "the new certificate is served", 100)
        print(f"certificate: served by every pod {time.monotonic() - written:.1f} s after the run")


def test_drain_of_a_node(mesh: Mesh) -> None:
    """As `kubectl drain` does it."""
    node = next(pod.node for pod in mesh.pods("front"))
    mesh.core.patch_node(node, {"spec": {"unschedulable": True}})
    try:
        with mesh.load("drain of a node"):
            drain(mesh.core, node)
            assert node not in {pod.node for pod in mesh.pods()}
    finally:
        mesh.core.patch_node(node, {"spec": {"unschedulable": False}})


def drain(core: client.CoreV1Api, node: str) -> None:
    """Evict all pods of a node, as fast as their budgets allow."""
    pods = core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    left = {(pod.metadata.namespace, pod.metadata.name) for pod in pods}
    assert left
    until = time.monotonic() + 120
    while left:
        assert time.monotonic() < until, f"not evicted: {left}"
        for namespace, name in sorted(left):
            eviction = {"metadata": {"name": name, "namespace": namespace}}
            try:
                core.create_namespaced_pod_eviction(name, namespace, eviction)
            except client.ApiException as problem:
                if problem.status == 429:  # its budget says: not yet
                    continue
                if problem.status != 404:
                    raise
            left.discard((namespace, name))
        time.sleep(1)


def test_death_of_a_pod(mesh: Mesh) -> None:
    """All processes of one pod of each service end at once."""
    with mesh.load("death of a pod of each service", share=0.001) as load:
        for service in mesh.services:
            kill(min(mesh.pods(service["name"])))
            load.wait_for(2000)


def kill(pod: Pod) -> None:
    processes = [
        int(process.name) for process in Path("/proc").glob("[0-9]*") if pod.uid in text_of(process / "cgroup")
    ]
    assert processes
    for process in processes:
        os.kill(process, signal.SIGKILL)


def text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_stop_of_the_api_server(mesh: Mesh, cluster: Any) -> None:
    with mesh.load("API server away for two minutes") as load, mesh.unmoved():
        cluster.stop("apiserver")
        try:
            load.wait_until(lambda _report: load.now > STOPPED_SECONDS, "two minutes", STOPPED_SECONDS + 10)
        finally:
            cluster.start("apiserver")
        wait_until(lambda: answers(mesh), "the API server answers", 60)
        # What it makes of nodes that did not report for so long.
        load.wait_for(3000)


def answers(mesh: Mesh) -> bool:
    try:
        return bool(mesh.nodes())
    except Exception:  # noqa: BLE001 - of whatever kind
        return False


def test_renaming_of_a_service(mesh: Mesh) -> None:
    """service-b gets another name. Nothing of the old one is left."""
    with mesh.load("renaming of a service"):
        renamed = copy.deepcopy(mesh.service("service-b")) | {"name": "service-c"}
        mesh.services = [express("service-a", "service-c"), renamed]
        for route in mesh.front()["routes"]:
            route["service"] = route["service"].replace("service-b", "service-c")
        mesh.must_run()
    assert not [name for name in mesh.objects() if "service-b" in name]
