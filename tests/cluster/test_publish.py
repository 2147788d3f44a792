"""Module mesh_publish on running pods: load goes on while a change arrives, is refused, is cut off, or meets trouble.

The pods' application is Envoy itself, which answers with its service's name.
"""

from __future__ import annotations

import contextlib
import http.client
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import (
    config_maps,
    envoy_yaml,
    kube,
    kube_fronts,
    kube_proxies,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.checks import probes
from ansible_collections.sidecar.mesh.plugins.module_utils.files import response
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.pods import is_ready, restarts
from behaviour.load import Load
from behaviour.machine import run_module, start_module, wait_until

from cluster import images

Object = dict[str, Any]
Files = dict[str, str]

NAME, PORT = "publish", 8000
ENVOY = images.envoy(images.NEWEST)
APPLICATION = """\
static_resources:
  listeners:
  - address: {socket_address: {address: 0.0.0.0, port_value: 8081}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: application
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              response_headers_to_add: [{header: {key: hostname, value: "%ENVIRONMENT(POD_NAME)%"}}]
              routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: SERVICE}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"""


def application(name: str, *upstreams: str) -> Object:
    command = [
        "envoy",
        "--config-yaml",
        APPLICATION.replace("SERVICE", name),
        "--disable-hot-restart",
        "--concurrency",
        "1",
    ]
    called = [{"service": upstream, "port": 9001 + index} for index, upstream in enumerate(upstreams)]
    pod = {"command": command, "stop_timeout": "1s"}
    return {"name": name, "port": 8081, "image": ENVOY, "replicas": 1, "upstreams": called, "pod": pod}


def to(service: str, prefix: str = "/") -> Object:
    return {"prefix": prefix, "service": service}


class Mesh:
    """Services a (which calls another) and b behind front f, in a namespace."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace
        self.cluster = kube.connect({"kubeconfig": kubeconfig})

    def model(self, *routes: Object, upstreams: str = "b") -> Object:
        services = [application("a", *upstreams), application("b")]
        services.append({"name": "c", "port": 80, "discovery": "static", "endpoints": [{"address": "192.0.2.1"}]})
        front = {
            "name": "f",
            "replicas": 2,
            "listeners": [{"port": PORT}],
            "routes": list(routes),
            "expose": "NodePort",
        }
        settings = {"engine": "kubernetes", "name": NAME, "namespace": self.namespace, "envoy_image": ENVOY}
        return build_model(services, [front], settings)

    def start(self, *routes: Object) -> None:
        for item in objects(self.model(*routes)):
            self.apply(item)
        self.wait()
        # A front that was there before the first pod of b looks its name up once more.
        wait_until(lambda: {self.answer(place) for place in self.places() * 10} == {200}, "the front answers", 60)

    def apply(self, item: Object) -> None:
        query = {"fieldManager": "sidecar.mesh", "force": "true"}
        kube.call(self.cluster, "PATCH", kube.path_of(self.cluster, item), query, item, kube.APPLY)

    def wait(self) -> None:
        def ready() -> bool:
            return sum(map(is_ready, self.pods())) == 4

        wait_until(ready, "all pods are ready", 120)

    def pods(self, workload: str = "") -> list[Object]:
        found = kube_proxies.of_mesh(self.cluster, kube_proxies.PODS, self.namespace, NAME)
        return [pod for pod in found if workload in ("", pod["metadata"]["labels"]["app"])]

    def pods_as_started(self) -> set[tuple[str, int]]:
        return {(pod["metadata"]["name"], restarts(pod)) for pod in self.pods()}

    def files(self, workload: str = "f") -> Files:
        """What the ConfigMap of a workload holds."""
        found = kube_proxies.of_mesh(self.cluster, kube_proxies.CONFIG_MAPS, self.namespace, NAME)
        return next(config_maps.files(item) for item in found if config_maps.workload(item) == workload)

    def arguments(self, wanted: list[Object], **more: Any) -> Object:
        return {**self.place(), "mesh": NAME, "config_maps": wanted, **more}

    def place(self) -> Object:
        return {"kubeconfig": self.kubeconfig, "namespace": self.namespace}

    def publish(self, model: Object, *, check: bool = False, **more: Any) -> Object:
        return run_module("mesh_publish", self.arguments(maps(model), **more), check=check)

    def must_publish(self, model: Object, **more: Any) -> Object:
        result = self.publish(model, **more)
        assert not result.get("failed"), result["msg"]
        return result

    def status(self, **more: Any) -> Object:
        return run_module("mesh_status", {**self.place(), "mesh": NAME, **more})

    def configurations(self) -> set[str]:
        running = [pod for workload in self.status()["workloads"] for pod in workload["replicas"]]
        return {pod["config"] for pod in running if pod["state"] == "ready"}

    def places(self) -> list[kube_fronts.Place]:
        """The front's node ports."""
        service = kube.call(self.cluster, "GET", kube_proxies.object_path(kube_proxies.SERVICES, self.namespace, "f"))
        return [
            place for place in kube_fronts.places(service, self.pods("f"), PORT) if place.how == kube_fronts.NODE_PORT
        ]

    def answer(self, place: kube_fronts.Place) -> int:
        """The status; 0 where nobody answers, as a node does before it knows of the port."""
        with (
            contextlib.closing(http.client.HTTPConnection(place.address, place.port, timeout=5)) as connection,
            contextlib.suppress(OSError),
        ):
            connection.request("GET", "/")
            return connection.getresponse().status
        return 0

    @contextlib.contextmanager
    def load(self, count: int = 1000) -> Iterator[Load]:
        """Load on the front proxy, through every node. Fails unless every request is answered, and no pod replaced."""
        places = self.places()
        before = self.pods_as_started()
        with Load(places[0].port, pause=0.01, hosts=[place.address for place in places]) as load:
            load.wait_for(100)
            yield load
            load.wait_for(100)
            load.wait_until(lambda report: report.count >= count, f"{count} requests", 120)
        load.report.must_be_whole(count)
        assert self.pods_as_started() == before


def objects(model: Object) -> list[Object]:
    return [item for entry in mesh_manifests(model) for item in entry["objects"]]


def maps(model: Object) -> list[Object]:
    return [item for item in objects(model) if item["kind"] == "ConfigMap"]


def of(workload: str, wanted: list[Object]) -> Object:
    return next(item for item in wanted if config_maps.workload(item) == workload)


@pytest.fixture(scope="module")
def running(cluster: Any) -> Iterator[Mesh]:
    mesh = Mesh(str(cluster.kubeconfig), f"publish-{secrets.token_hex(4)}")
    kube.call(mesh.cluster, "POST", "/api/v1/namespaces", body={"metadata": {"name": mesh.namespace}})
    try:
        mesh.start(to("b"))
        yield mesh
    finally:
        kube.call(mesh.cluster, "DELETE", f"/api/v1/namespaces/{mesh.namespace}")


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    """With all requests going to b."""
    running.wait()
    running.must_publish(running.model(to("b")))
    return running


def served(load: Load, since: float) -> set[str]:
    """The services that answered since."""
    return {name.partition("-")[0] for name in load.report.hostnames(begin=since)}


def test_a_change_of_routes_and_clusters_loses_no_request(mesh: Mesh) -> None:
    new = mesh.model(to("b", "/b"), to("a"))
    with mesh.load() as load:
        result = mesh.must_publish(new)
        # One that was sent before may be answered after.
        done = load.now + 0.2
        load.wait_for(200)
        assert served(load, done) == {"a"}
    # Routes use a cluster when it is there, and not before.
    assert [step["step"] for step in result["steps"]] == [1, 4]
    assert {step["pods"] for step in result["steps"]} == {2}
    assert list(result["published"].values()) == [["cds.yaml", "rds.front_8000.yaml"]]
    assert [entry["after_header"].split()[-1] for entry in result["diff"]] == ["cds.yaml", "rds.front_8000.yaml"]
    again = mesh.must_publish(new)
    assert (again["changed"], again["steps"]) == (False, [])


def test_check_mode_tells_and_touches_nothing(mesh: Mesh) -> None:
    before = mesh.files()
    result = mesh.must_publish(mesh.model(to("a")), check=True)
    assert result["changed"]
    assert "steps" not in result
    assert any("cluster: a" in entry["after"] for entry in result["diff"])
    assert mesh.files() == before


def damaged(wanted: list[Object]) -> list[Object]:
    """With a cluster that every Envoy refuses."""
    front = of("f", wanted)
    clusters = envoy_yaml.load(front["data"]["cds.yaml"])["resources"]
    broken = [{**each, "connect_timeout": "-1s"} if each["name"] == "a" else each for each in clusters]
    front["data"]["cds.yaml"] = response(broken)
    return wanted


def test_a_refused_configuration_is_put_back(mesh: Mesh) -> None:
    before = mesh.files()
    names = sorted(pod["metadata"]["name"] for pod in mesh.pods("f"))
    with mesh.load() as load:
        result = run_module("mesh_publish", mesh.arguments(damaged(maps(mesh.model(to("a")))), timeout=30))
        load.wait_for(100)
        assert served(load, 0) == {"b"}
    assert result["failed"]
    first, *lines = result["msg"].splitlines()
    assert first == "The former configuration serves on, because Envoy did not take the new one:"
    assert [line.partition(": Expected")[0] for line in lines] == [
        f"pod {name}: Envoy refused cds.yaml: Invalid duration" for name in names
    ]
    assert mesh.files() == before
    assert mesh.configurations() == {"current"}
    notes = mesh.status()["notes"]
    assert all(any(name in note and "Invalid duration" in note for note in notes) for name in names)


def test_a_run_that_was_cut_off_is_resumed(mesh: Mesh) -> None:
    old, model = mesh.files(), mesh.model(to("b", "/b"), to("a"))
    wanted = of("f", maps(model))["data"]
    with mesh.load() as load:
        process = start_module("mesh_publish", mesh.arguments(maps(model)))
        wait_until(lambda: mesh.files() != old, "the first step is written", 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        between = mesh.files()
        assert between["rds.front_8000.yaml"] == old["rds.front_8000.yaml"] != wanted["rds.front_8000.yaml"]
        assert between["cds.yaml"] == wanted["cds.yaml"] != old["cds.yaml"]
        result = mesh.must_publish(model)
        done = load.now + 0.2
        load.wait_for(200)
        assert served(load, done) == {"a"}
    assert [step["step"] for step in result["steps"]] == [4]
    assert mesh.files() == wanted


def test_what_was_refused_and_left_is_overcome(mesh: Mesh) -> None:
    """As if a run had been killed before it put back what was refused."""
    front = of("f", damaged(maps(mesh.model(to("b", "/b"), to("a")))))
    front["data"]["rds.front_8000.yaml"] = mesh.files()["rds.front_8000.yaml"]
    mesh.apply(front)
    with mesh.load():
        mesh.must_publish(mesh.model(to("b")))
    assert mesh.configurations() == {"current"}


def test_pods_that_go_and_come_are_no_hindrance(mesh: Mesh) -> None:
    old = mesh.files()
    process = start_module("mesh_publish", mesh.arguments(maps(mesh.model(to("b", "/b"), to("a")))))
    wait_until(lambda: mesh.files() != old, "the first step is written", 60)
    kube.call(mesh.cluster, "DELETE", kube_proxies.pod_path(mesh.pods("f")[0]), {"gracePeriodSeconds": "0"})
    output, errors = process.communicate(timeout=120)
    assert '"changed": true' in output, output + errors
    mesh.wait()
    assert mesh.configurations() == {"current"}


def test_pods_that_are_to_be_rolled_keep_what_their_application_calls(mesh: Mesh) -> None:
    former = of("a", maps(mesh.model(to("b"))))
    with mesh.load():
        # Port 9001 is to lead to c, and 9002 to b.
        mesh.must_publish(mesh.model(to("b"), upstreams="cb"))
        held = mesh.files("a")
    assert held["rds.egress_9001.yaml"] == former["data"]["rds.egress_9001.yaml"] != held["rds.egress_9002.yaml"]
    assert {"b", "c"} <= {item["name"] for item in envoy_yaml.load(held["cds.yaml"])["resources"]}
    assert mesh.configurations() == {"current"}


class Gate:
    """The API server at another address, which can be closed. Everything passes as it is."""

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("https://").split(":")
        self._server = (host, int(port))
        self._open = True
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._open = False
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._open = True

    def _serve(self) -> None:
        while True:
            near = self._listener.accept()[0]
            if not self._open:
                near.close()
                continue
            far = socket.create_connection(self._server)
            self._sockets += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


def test_an_api_server_that_is_gone_for_a_while_is_waited_for(mesh: Mesh) -> None:
    gate, old = Gate(mesh.cluster.url), mesh.files()
    token = next(iter(mesh.cluster.configuration.api_key.values())).removeprefix("Bearer ")
    through = {"kubeconfig": None, "host": gate.address, "api_key": token, "validate_certs": False}
    with mesh.load():
        wanted = maps(mesh.model(to("b", "/b"), to("a")))
        process = start_module("mesh_publish", mesh.arguments(wanted, **through))
        wait_until(lambda: mesh.files() != old, "the first step is written", 60)
        gate.close()
        time.sleep(8)
        assert process.poll() is None
        gate.open()
        output, errors = process.communicate(timeout=120)
    assert '"changed": true' in output, output + errors


def test_missing_rights_are_named(mesh: Mesh) -> None:
    """Whoever may read and write ConfigMaps and pods, and neither ask their proxies nor read Deployments."""
    rules = [{"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list", "patch"]}]
    user = {"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "jane"}
    for item in ({"kind": "Role", "rules": rules}, {"kind": "RoleBinding", "subjects": [user], "roleRef": reference}):
        metadata = {"name": "jane", "namespace": mesh.namespace}
        mesh.apply({"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata, **item})
    where = f"in namespace {mesh.namespace}: give it a Role and a RoleBinding with verb"
    result = mesh.publish(mesh.model(to("a")), impersonate_user="jane")
    assert result["msg"] == f"jane may not get pods/proxy {where} get"
    told = mesh.status(impersonate_user="jane")
    assert told["notes"] == [
        f"jane may not get pods/proxy {where} get",
        f"jane may not list deployments.apps {where} list",
    ]


@pytest.mark.parametrize(("expose", "how"), [("NodePort", kube_fronts.NODE_PORT), ("ClusterIP", kube_fronts.FORWARD)])
def test_a_front_is_verified_wherever_it_is_reached(mesh: Mesh, expose: str, how: str) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "f", "namespace": mesh.namespace}}
    service["spec"] = {"type": expose, "ports": [{"name": f"http-{PORT}", "port": PORT, "targetPort": PORT}]}
    mesh.apply(service)
    checks = [
        {"name": "b answers", "url": "http://f/", "body": "b", "service": "b", "front": "f", "passes": ["f", "b"]},
        {"name": "a answers", "url": f"http://f:{PORT}/", "body": "a"},
    ]
    paths = {"applications": "/nowhere", "grpcurl": "grpcurl"}
    asked = probes(mesh.model(to("b")), checks, paths)
    result = run_module("mesh_probe", {**mesh.place(), "timeout": 10, "probes": asked})
    (proven,) = result["proven"]
    assert proven.startswith("b answers (")
    assert how in proven
    assert f"({how}) answered 'b', which does not contain 'a'" in result["msg"]
