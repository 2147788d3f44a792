"""Envoys that a control plane sends their configuration: in real pods, under load, with and without it.

One mesh, front proxy → service-a → service-b, two pods each, and two replicas of the control plane.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from behaviour.machine import wait_until
from kubernetes import client

from cluster import control_plane, images
from cluster.commands import run
from cluster.handle import Cluster
from cluster.lifecycle import given
from cluster.mesh import Mesh, Watch, answers, ask, processes
from cluster.relay import front, service

Item = dict[str, Any]

NAME = "sent"
SENDER = f"{NAME}-control-plane"
CLUSTERS = "cds.yaml"
PORT, STATUS_PORT = 18000, 18001
FOLLOW_SECONDS = 3.0
AWAY_SECONDS = 120.0
SHORT_DNS = {"refresh_rate": "1s", "jitter": "0.1s", "ttl": "5s"}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    return control_plane.image(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def running(cluster: Cluster, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    if outside := given():
        pytest.skip(f"asks pods from this machine, which KUBECONFIG={outside} does not let")
    with cluster.new_namespace() as namespace:
        mesh = Mesh(cluster, namespace, tmp_path_factory.mktemp("mesh"))
        mesh.services = [service("service-a", "service-b"), service("service-b")]
        mesh.fronts = [front()]
        mesh.settings = {
            "mesh_name": NAME,
            "mesh_envoy_image": images.envoy(images.OLDEST),
            "mesh_dns": SHORT_DNS,
            "mesh_config_delivery": "ads",
            "mesh_control_plane": {"image": image},
        }
        mesh.must_run()
        yield mesh
        mesh.must_run("reset")


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    running.settle()
    return running


def page(mesh: Mesh, name: str = "status") -> list[Any]:
    """What the replicas of the control plane say."""
    pods = (pod for pod in mesh.pods(SENDER))
    return [ask(pod, f"/{name}", port=STATUS_PORT) for pod in pods]


def connected(mesh: Mesh) -> dict[str, Item]:
    """What they say of each proxy."""
    return {entry["node"]: entry for text in page(mesh) for entry in json.loads(text)["connected"]}


def proxies(mesh: Mesh) -> set[str]:
    return {pod.name for pod in mesh.pods() - mesh.pods(SENDER)}


def status(mesh: Mesh) -> list[str]:
    """What the playbook shows."""
    return next(list(result["lines"]) for _name, result in mesh.must_run("status").tasks if "lines" in result)


def all_synced(mesh: Mesh) -> bool:
    """Whether every proxy is connected and has all; one that is about to end may be, too."""
    found = connected(mesh)
    wanted = proxies(mesh)
    return wanted <= set(found) and all(found[name]["synced"] for name in wanted)


def test_every_proxy_is_sent_its_own(mesh: Mesh) -> None:
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 30)
    found = connected(mesh)
    assert {entry["protocol"] for entry in found.values()} == {"delta"}
    assert all(entry["proxy"].startswith(f"{entry['workload']}-envoy-") for entry in found.values())
    lines = status(mesh)
    assert sum(" current " in line for line in lines) == 6
    assert any(line.startswith("CONTROL PLANE") for line in lines)
    assert not any("not connected" in line for line in lines)
    assert 'connected_proxies{protocol="delta"}' in "".join(page(mesh, "metrics"))


def test_a_second_run_changes_nothing(mesh: Mesh) -> None:
    assert mesh.must_run().changed == []


def test_route_cluster_and_upstream(mesh: Mesh) -> None:
    with mesh.load("sent: route, cluster and upstream change"), mesh.unmoved():
        mesh.front()["routes"].insert(0, {"prefix": "/b", "service": "service-b"})
        mesh.service("service-b").update(lb_policy="least_request", connect_timeout="2s")
        mesh.service("service-a")["upstreams"][0].update(timeout="7s", retries=4)
        with (
            mesh.config_writes() as writes,
            Watch(mesh.pods("front"), lambda pod: ask(pod, "/b") == "service-b ") as follow,
        ):
            mesh.must_run()
            followed = follow.wait()
            seconds = followed - max(each for each in writes if each < followed)
        print(f"sent route: traffic of every pod follows {seconds:.2f} s after the ConfigMap was written")
        assert seconds < FOLLOW_SECONDS


def test_what_an_envoy_refuses_fails_the_play_and_is_put_back(mesh: Mesh) -> None:
    """What no validation finds: an address that no pod has. What else changes is done first, and put back as well."""
    before = {name: files for name, files in config_maps(mesh).items() if CLUSTERS in files}
    listener, route = mesh.front()["listeners"][0], mesh.front()["routes"][0]
    with mesh.load("sent: a change that an Envoy refuses", 3000), mesh.unmoved():
        address = {"socket_address": {"address": "192.0.2.1", "port_value": listener["port"]}}
        listener["envoy_patch"] = {"listener": {"address": address}}
        route["timeout"] = "8s"
        failure = mesh.run().failure
        assert "The former configuration serves on, because Envoy did not take the new one" in failure
        assert "Envoy refused listeners front_" in failure
        assert "192.0.2.1" in failure
        del listener["envoy_patch"], route["timeout"]
    wait_until(lambda: all_synced(mesh), "every proxy has what it had", 30)
    assert {name: files for name, files in config_maps(mesh).items() if CLUSTERS in files} == before
    assert mesh.must_run().changed == []


def config_maps(mesh: Mesh) -> dict[str, Item]:
    found = mesh.core.list_namespaced_config_map(mesh.namespace).items
    return {item.metadata.name: item.data or {} for item in found}


def test_what_an_envoy_refuses_is_told_and_leaves_what_it_had(mesh: Mesh) -> None:
    """Written past the playbook, which would have had it validated first."""
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 30)
    (name,) = {entry["proxy"] for entry in connected(mesh).values() if entry["workload"] == "front"}
    files = mesh.core.read_namespaced_config_map(name, mesh.namespace).data
    (file,) = (each for each in files if each.startswith("rds."))
    refused = files[file].replace("        prefix: /\n", "        path_separated_prefix: /x/\n")
    assert refused != files[file]
    with mesh.load("sent: something that is refused", 3000), mesh.unmoved():
        mesh.core.patch_namespaced_config_map(name, mesh.namespace, {"data": {file: refused}})
        told = []

        def is_told() -> bool:
            entries = [entry for entry in connected(mesh).values() if entry["workload"] == "front"]
            told[:] = [entry["types"]["routes"] for entry in entries if entry["types"]["routes"]["refused"]]
            return len(told) == 2

        wait_until(is_told, "both refuse it", 20)
        assert {tuple(each["refused"]) for each in told} == {(file[len("rds.") : -len(".yaml")],)}
        assert all(each["nack"]["message"] for each in told)
        assert sum("refused: routes" in line for line in status(mesh)) == 2
        mesh.core.patch_namespaced_config_map(name, mesh.namespace, {"data": {file: files[file]}})
    wait_until(lambda: all_synced(mesh), "all have taken what is right", 20)


def test_a_policy_admits_nobody_but_the_proxies(mesh: Mesh) -> None:
    assert opened_from_here(mesh, "") == "UNAVAILABLE"
    assert opened_by_a_proxy(mesh, "") == "UNAUTHENTICATED"


@pytest.mark.parametrize("token", ["forged", "a.b.c", "for somebody else", "front", "default"])
def test_who_does_not_prove_which_proxy_it_is_gets_nothing(mesh: Mesh, token: str) -> None:
    accounts = {"for somebody else": "front", "front": "front", "default": "default"}
    if token in accounts:  # real ones: for another audience, and of accounts without a pod
        audience = "https://elsewhere.example" if token == "for somebody else" else SENDER
        body = {"spec": {"audiences": [audience]}}
        token = mesh.core.create_namespaced_service_account_token(accounts[token], mesh.namespace, body).status.token
    assert opened_by_a_proxy(mesh, token) == "UNAUTHENTICATED"


OPEN = """
import sys, grpc
authority, name, address, token = sys.argv[1:]
options = [("grpc.ssl_target_name_override", name)]
channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority.encode()), options)
calls = channel.stream_stream("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
metadata = [("x-mesh-token", token)] if token else []
try:
    next(calls(iter([b""]), metadata=metadata, timeout=10))
except grpc.RpcError as error:
    print(error.code().name)
"""
"""Opens a stream, and prints how it ended."""


def opened_from_here(mesh: Mesh, token: str, *prefix: str) -> str:
    authority = mesh.core.read_namespaced_config_map(f"{SENDER}-ca", mesh.namespace).data["ca.crt"]
    name, pod = f"{SENDER}.{mesh.namespace}.svc.cluster.local", min(mesh.pods(SENDER))
    arguments = [authority, name, f"{pod.address}:{PORT}", token]
    return run(*prefix, sys.executable, "-c", OPEN, *arguments).strip()


def opened_by_a_proxy(mesh: Mesh, token: str) -> str:
    """From the network of a front proxy's pod."""
    return opened_from_here(mesh, token, "nsenter", f"--net=/proc/{min(processes(min(mesh.pods('front'))))}/ns/net")


@pytest.mark.thorough
def test_scale(mesh: Mesh) -> None:
    """A third pod gets its share at once; those that leave are not missed."""
    with mesh.load("sent: scale 2 → 3 → 1") as load:
        for replicas in (3, 1):
            for each in [*mesh.services, *mesh.fronts]:
                each["replicas"] = replicas
            mesh.must_run()
            names = {pod.name for pod in mesh.pods("service-a")}
            assert len(names) == replicas
            load.wait_until(lambda report: names <= set(report.hostnames()), f"answers of {names}")  # noqa: B023
    for each in [*mesh.services, *mesh.fronts]:
        each["replicas"] = 2
    mesh.must_run()


@pytest.mark.thorough
def test_restart_of_the_control_plane(mesh: Mesh) -> None:
    before = mesh.pods() - mesh.pods(SENDER)
    with mesh.load("sent: the control plane is replaced"):
        for pod in mesh.pods(SENDER):
            mesh.core.delete_namespaced_pod(pod.name, mesh.namespace)
        mesh.settle()
        wait_until(lambda: all_synced(mesh), "every proxy is connected again", 60)
    assert mesh.pods() - mesh.pods(SENDER) == before


@pytest.mark.thorough
def test_update_of_envoy(mesh: Mesh) -> None:
    before = proxies(mesh)
    with mesh.load("sent: update of Envoy"):
        mesh.settings["mesh_envoy_image"] = images.envoy(images.NEWEST)
        mesh.must_run()
    assert not proxies(mesh) & before
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 30)


@pytest.mark.thorough
@pytest.mark.alone
def test_drain_of_a_node(mesh: Mesh) -> None:
    """The control plane's pods are evicted with the others."""
    with mesh.load("sent: drain of a node"), mesh.drained_node() as node:
        assert node not in {pod.node for pod in mesh.pods()}
    mesh.settle()
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 60)


@pytest.mark.thorough
def test_two_minutes_without_the_control_plane(mesh: Mesh) -> None:
    """Envoys keep what they have; a pod that comes meanwhile starts from its files."""
    apps = client.AppsV1Api(mesh.cluster.api)
    with mesh.load("sent: no control plane for two minutes") as load:
        apps.patch_namespaced_deployment_scale(SENDER, mesh.namespace, {"spec": {"replicas": 0}})
        wait_until(lambda: not mesh.pods(SENDER), "the control plane is gone", 60)
        gone = time.monotonic()
        leaving = min(mesh.pods("service-b"))
        mesh.core.delete_namespaced_pod(leaving.name, mesh.namespace)
        mesh.settle()
        assert sum("is not connected to the control plane" in line for line in status(mesh)) == len(proxies(mesh))
        load.wait_until(lambda _report: time.monotonic() > gone + AWAY_SECONDS, "two minutes", AWAY_SECONDS + 60)
        apps.patch_namespaced_deployment_scale(SENDER, mesh.namespace, {"spec": {"replicas": 2}})
        mesh.settle()
    wait_until(lambda: len(proxies(mesh) - set(connected(mesh))) == 1, "all others are connected again", 60)
    (new,) = proxies(mesh) - set(connected(mesh))
    assert new in {pod.name for pod in mesh.pods("service-b")}
    mesh.core.delete_namespaced_pod(new, mesh.namespace)
    mesh.settle()
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 30)


@pytest.mark.thorough
def test_from_one_delivery_to_the_other_and_back(mesh: Mesh) -> None:
    with mesh.load("sent: ads → files → ads"):
        mesh.settings["mesh_config_delivery"] = "files"
        mesh.must_run()
        assert not [name for name in mesh.objects() if "control-plane" in name]
        mesh.settings["mesh_config_delivery"] = "ads"
        mesh.must_run()
    wait_until(lambda: all_synced(mesh), "every proxy is connected", 30)
    assert answers(mesh, "/") == {"service-a service-b "}
