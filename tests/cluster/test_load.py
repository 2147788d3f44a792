"""No request is lost, whatever is done to a mesh on Kubernetes: load on keep-alive and on new connections while it is.

One mesh, front proxy → service-a → service-b, two pods each, goes through it all in this order.
"""

from __future__ import annotations

import copy
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

from cluster import images
from cluster.handle import Cluster
from cluster.lifecycle import given
from cluster.mesh import Mesh, Pod, Watch, answers, ask, processes
from cluster.relay import front, service

Item = dict[str, Any]

HTTPS = 8443
OLD_ENVOY, NEW_ENVOY = images.envoy(images.OLDEST), images.envoy(images.NEWEST)
FOLLOW_SECONDS = 3.0
STOPPED_SECONDS = 120.0
SHORT_DNS = {"refresh_rate": "1s", "jitter": "0.1s", "ttl": "5s"}
"""What this cluster's DNS keeps to; pods then leave in a quarter of the time."""


@pytest.fixture(scope="module")
def running(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    if outside := given():
        pytest.skip(f"asks and kills pods from this machine, which KUBECONFIG={outside} does not let")
    with cluster.new_namespace() as namespace:
        mesh = Mesh(cluster, namespace, tmp_path_factory.mktemp("mesh"))
        mesh.services = [service("service-a", "service-b"), service("service-b")]
        mesh.fronts = [front()]
        mesh.settings = {"mesh_name": "load", "mesh_envoy_image": OLD_ENVOY}
        mesh.must_run()
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    """The mesh as the test before left it, at rest."""
    running.settle()
    return running


def test_route_cluster_and_upstream(mesh: Mesh) -> None:
    """Running Envoys take them, and no pod is replaced. Traffic of every pod follows a route within three seconds."""
    with mesh.load("route, cluster and upstream change"), mesh.unmoved():
        mesh.front()["routes"].insert(0, {"prefix": "/b", "service": "service-b"})
        mesh.service("service-b").update(lb_policy="least_request", connect_timeout="2s")
        mesh.service("service-a")["upstreams"][0].update(timeout="7s", retries=4)
        with (
            mesh.config_writes() as writes,
            Watch(mesh.pods("front"), lambda pod: ask(pod, "/b") == "service-b ") as follow,
        ):
            play = mesh.must_run()
            followed = follow.wait()
            seconds = followed - max(each for each in writes if each < followed)
        print(f"route: traffic of every pod follows {seconds:.1f} s after the ConfigMap was written")
        assert seconds < FOLLOW_SECONDS
        assert "Publish clusters, endpoints, routes and listeners" in play.changed


def test_update_of_the_application(mesh: Mesh) -> None:
    before = mesh.pods()
    with mesh.load("update of the applications"):
        for each in mesh.services:
            each["environment"]["SERVICE_NAME"] += "-new"
        mesh.must_run()
    assert mesh.pods() & before == mesh.pods("front")
    assert answers(mesh, "/") == {"service-a-new service-b-new "}


@pytest.mark.thorough
def test_scale(mesh: Mesh) -> None:
    """A third pod gets its share; those that leave are not missed."""
    with mesh.load("scale 2 → 3 → 1") as load:
        for replicas in (3, 1):
            for each in [*mesh.services, *mesh.fronts]:
                each["replicas"] = replicas
            mesh.must_run()
            names = {pod.name for pod in mesh.pods("service-a")}
            assert len(names) == replicas
            load.wait_until(lambda report: names <= set(report.hostnames()), f"answers of {names}")  # noqa: B023
    assert set(load.report.hostnames(load.now - 2)) == names
    for each in [*mesh.services, *mesh.fronts]:
        each["replicas"] = 2


@pytest.mark.thorough
def test_update_of_envoy(mesh: Mesh) -> None:
    """And of everything in which pods are started: the times of DNS, a certificate, the path of probes."""
    before = mesh.pods()
    assert len(before) == 3
    with mesh.load("update of Envoy"):
        mesh.settings |= {"mesh_envoy_image": NEW_ENVOY, "mesh_dns": SHORT_DNS}
        mesh.front()["health_path"] = "/well"
        mesh.front()["listeners"].append({"port": HTTPS, "tls": {"secret": "front-tls"}})
        mesh.must_run()
    assert not mesh.pods() & before


@pytest.mark.thorough
def test_static_configuration(mesh: Mesh) -> None:
    """Whose every change replaces pods; then back to files, and to the oldest Envoy."""
    with mesh.load("mesh_config_delivery static, a change of it, and back"):
        mesh.settings["mesh_config_delivery"] = "static"
        mesh.must_run()
        before = mesh.pods("front")
        mesh.front()["routes"].insert(0, {"prefix": "/static", "service": "service-b"})
        mesh.must_run()
        assert not mesh.pods("front") & before
        assert answers(mesh, "/static") == {"service-b-new "}
        mesh.settings |= {"mesh_envoy_image": OLD_ENVOY, "mesh_config_delivery": "files"}
        mesh.must_run()


@pytest.mark.thorough
def test_renewal_of_a_certificate(mesh: Mesh) -> None:
    port = mesh.node_port(HTTPS)

    def served() -> set[str]:
        addresses = mesh.cluster.nodes.values()
        return {ssl.get_server_certificate((node, port), timeout=10) for node in addresses for _again in range(3)}

    (old,) = served()
    with mesh.load("renewal of a certificate", port=HTTPS, tls=True), mesh.unmoved():
        mesh.must_run(certificates_renew_days=400, certificates_days=500)
        written = time.monotonic()
        wait_until(lambda: old not in served(), "every pod serves the new certificate", 120)
        print(f"certificate: every pod serves the new one {time.monotonic() - written:.1f} s after the run")


@pytest.mark.thorough
@pytest.mark.alone
def test_drain_of_a_node(mesh: Mesh) -> None:
    """As `kubectl drain` does it; DNS runs on one of the nodes, too."""
    with mesh.load("drain of a node"), mesh.drained_node() as node:
        assert node not in {pod.node for pod in mesh.pods()}


def test_death_of_a_pod(mesh: Mesh) -> None:
    """All processes of a pod of each service end at once."""
    with mesh.load("death of a pod of each service", share=0.001) as load:
        for each in mesh.services:
            kill(min(mesh.pods(each["name"])))
            load.wait_for(2000)


def kill(pod: Pod) -> None:
    for number in processes(pod):
        os.kill(number, signal.SIGKILL)


@pytest.mark.thorough
@pytest.mark.alone
def test_stop_of_the_api_server(mesh: Mesh) -> None:
    with mesh.load("API server away for two minutes") as load, mesh.unmoved():
        mesh.cluster.stop("apiserver")
        try:
            time.sleep(STOPPED_SECONDS)
        finally:
            mesh.cluster.start("apiserver")
        # What it makes of nodes that did not report for so long.
        end = load.now + 30
        load.wait_until(lambda _report: load.now > end, "half a minute", 60)


@pytest.mark.thorough
def test_changes_that_fail(mesh: Mesh) -> None:
    """Each with an error that says why; the pods of before serve on, and the next run completes."""
    good = copy.deepcopy(mesh.services)
    (before,) = answers(mesh, "/")
    with mesh.load("changes that fail"):
        with mesh.unmoved():
            objects, routes = mesh.objects(), mesh.front()["routes"]
            mesh.front()["routes"] = [
                *({"prefix": f"/{'far' * 30}/{n:04}", "service": "service-b"} for n in range(9000)),
                *routes,
            ]
            failure = mesh.run().failure
            assert "front: its configuration has " in failure
            assert "and a ConfigMap takes 1,048,576" in failure
            assert mesh.objects() == objects
            mesh.front()["routes"] = routes
            mesh.service("service-b")["envoy_patch"] = {"cluster": {"connect_timeout": "-1s"}}
            assert "Invalid duration" in mesh.run().failure
            mesh.services = copy.deepcopy(good)
            mesh.service("service-a")["image"] = "localhost/there-is-none:1"
            mesh.service("service-b")["pod"]["command"] = ["node", "--eval", "throw new Error('out of stock')"]
            failure = mesh.run().failure
            assert "ErrImagePull" in failure or "ImagePullBackOff" in failure
            assert "container application: crashes: exit code 1" in failure
            assert "Error: out of stock" in failure
            mesh.services = copy.deepcopy(good)
            failure = mesh.run(mesh_kubeconfig=str(guest(mesh)), mesh_former="keep").failure
            assert f"system:serviceaccount:{mesh.namespace}:guest may not " in failure
            assert "give it a Role and a RoleBinding" in failure
        mesh.must_run()
        mesh.settle()
        pods = {"hard": {"pods": str(len(mesh.all_pods()))}}
        mesh.core.create_namespaced_resource_quota(mesh.namespace, {"metadata": {"name": "few"}, "spec": pods})
        mesh.service("service-b")["environment"]["SERVICE_NAME"] = "service-b-late"
        assert "exceeded quota: few" in mesh.run().failure
        assert answers(mesh, "/") == {before}
        mesh.core.delete_namespaced_resource_quota("few", mesh.namespace)
        mesh.must_run()
    assert answers(mesh, "/") == {f"{before.split()[0]} service-b-late "}


def guest(mesh: Mesh) -> Path:
    """The kubeconfig of somebody who may look at all that is in the namespace."""
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    role = {"metadata": {"name": "guest"}, "rules": rules}
    client.RbacAuthorizationV1Api(mesh.cluster.api).create_namespaced_role(mesh.namespace, role)
    return mesh.kubeconfig_of("guest", "Role", "guest")


@pytest.mark.thorough
def test_renaming_of_a_service(mesh: Mesh) -> None:
    """Nothing of the old name is left."""
    with mesh.load("renaming of a service"):
        mesh.services = [service("service-a", "service-c"), service("service-c")]
        for route in mesh.front()["routes"]:
            route["service"] = route["service"].replace("service-b", "service-c")
        mesh.must_run()
    assert not [name for name in mesh.objects() if "service-b" in name]
    assert answers(mesh, "/") == {"service-a service-c "}


@pytest.mark.thorough
def test_another_namespace(mesh: Mesh) -> None:
    """The playbook asks what becomes of the old one, and makes and removes the new one."""
    other = f"{mesh.namespace}-other"
    before = mesh.pods()
    refused = mesh.run(mesh_namespace=other)
    assert "mesh_former: not set, but this inventory ran its mesh elsewhere before" in refused.failure
    assert mesh.pods() == before
    mesh.must_run(mesh_namespace=other, mesh_former="remove")
    made = ("service-", "front")
    wait_until(lambda: not [name for name in mesh.objects() if any(each in name for each in made)], "all is gone", 90)
    there = Mesh(mesh.cluster, other, mesh.folder)
    assert {pod.name.rpartition("-")[0].rpartition("-")[0] for pod in there.pods()} == {
        "front",
        "service-a",
        "service-c",
    }
    mesh.must_run("reset", mesh_namespace=other)
    assert other not in {each.metadata.name for each in mesh.core.list_namespace().items}
