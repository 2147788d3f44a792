"""A mesh in a namespace of a cluster, brought up and changed by the collection's own playbooks, as a user would."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from behaviour.load import Load
from behaviour.local_mesh import Play, environment, play_of
from behaviour.machine import BIN, wait_until
from kubernetes import client, watch
from urllib3.exceptions import HTTPError

from cluster.handle import Cluster

PLAY_SECONDS = 600
SETTLED_SECONDS = 150

Item = dict[str, Any]


class Pod(NamedTuple):
    """A pod that serves; equal as long as neither it nor a container of it was replaced."""

    name: str
    uid: str
    address: str
    node: str
    restarts: int


class Mesh:
    """A mesh. ``services``, ``fronts`` and ``settings`` (any other variables) are its inventory, which a test changes
    before it runs a playbook."""

    def __init__(self, cluster: Cluster, namespace: str, folder: Path) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.folder = folder
        self.services: list[Item] = []
        self.fronts: list[Item] = []
        self.settings: Item = {}
        self.core = client.CoreV1Api(cluster.api)

    def service(self, name: str) -> Item:
        return next(service for service in self.services if service["name"] == name)

    def front(self) -> Item:
        return self.fronts[0]

    # The playbooks

    def run(self, playbook: str = "mesh", *options: str, **variables: Any) -> Play:
        inventory = self.folder / "inventory.json"
        inventory.write_text(json.dumps(self._inventory(variables), indent=1))
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", inventory, f"sidecar.mesh.{playbook}", *options],
            cwd=self.folder,
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        return play_of(done)

    def must_run(self, playbook: str = "mesh", *options: str, **variables: Any) -> Play:
        play = self.run(playbook, *options, **variables)
        assert play.code == 0, play.failure or play.output
        return play

    def _inventory(self, variables: Item) -> Item:
        everything = {
            "mesh_engine": "kubernetes",
            "mesh_kubeconfig": str(self.cluster.kubeconfig),
            "mesh_namespace": self.namespace,
            "mesh_services": self.services,
            "mesh_front_proxies": self.fronts,
            **self.settings,
            **variables,
        }
        host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        return {"all": {"hosts": {"localhost": host}, "vars": everything}}

    # What is there

    def all_pods(self) -> list[Any]:
        pods: list[Any] = self.core.list_namespaced_pod(
            self.namespace, label_selector="app.kubernetes.io/managed-by=sidecar.mesh"
        ).items
        return pods

    def pods(self, workload: str = "") -> set[Pod]:
        """Those that serve and are not about to go."""
        return {
            _pod(pod)
            for pod in self.all_pods()
            if not pod.metadata.deletion_timestamp
            and workload in ("", pod.metadata.labels["app"])
            and any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])
        }

    def settle(self) -> None:
        """Wait until no pod is on its way, in or out."""
        wait_until(lambda: len(self.pods()) == len(self.all_pods()), "all pods serve", SETTLED_SECONDS)

    @contextlib.contextmanager
    def unmoved(self) -> Iterator[None]:
        """Fails if a pod was replaced, or a container restarted, within the block."""
        before = self.pods()
        yield
        assert self.pods() == before

    @contextlib.contextmanager
    def drained_node(self) -> Iterator[str]:
        """A node without the mesh's pods, on which DNS has run as well."""
        (node,) = {pod.spec.node_name for pod in self.core.list_namespaced_pod("kube-system").items}
        self.core.patch_node(node, {"spec": {"unschedulable": True}})
        try:
            drain(self.core, node, {self.namespace, "kube-system"})
            yield str(node)
        finally:
            self.core.patch_node(node, {"spec": {"unschedulable": False}})

    def objects(self) -> list[str]:
        """Kind and name of everything in the namespace that the mesh may have made."""
        api = self.cluster.api
        apps, policy, network = client.AppsV1Api(api), client.PolicyV1Api(api), client.NetworkingV1Api(api)
        lists = {
            "ConfigMap": self.core.list_namespaced_config_map,
            "Deployment": apps.list_namespaced_deployment,
            "NetworkPolicy": network.list_namespaced_network_policy,
            "Pod": self.core.list_namespaced_pod,
            "PodDisruptionBudget": policy.list_namespaced_pod_disruption_budget,
            "Secret": self.core.list_namespaced_secret,
            "Service": self.core.list_namespaced_service,
            "ServiceAccount": self.core.list_namespaced_service_account,
        }
        return [
            f"{kind}/{each.metadata.name}" for kind, listed in lists.items() for each in listed(self.namespace).items
        ]

    def node_port(self, port: int, front: str = "") -> int:
        service = self.core.read_namespaced_service(front or self.front()["name"], self.namespace)
        return next(each.node_port for each in service.spec.ports if each.port == port)

    def kubeconfig_of(self, account: str, kind: str, role: str) -> Path:
        """For somebody who has the rights of a Role or ClusterRole in the namespace, and no others."""
        metadata = {"name": account}
        self.core.create_namespaced_service_account(self.namespace, {"metadata": metadata})
        subjects = [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}]
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
        client.RbacAuthorizationV1Api(self.cluster.api).create_namespaced_role_binding(
            self.namespace, {"metadata": metadata, "subjects": subjects, "roleRef": reference}
        )
        token = self.core.create_namespaced_service_account_token(account, self.namespace, {"spec": {}}).status.token
        kubeconfig = yaml.safe_load(self.cluster.kubeconfig.read_text())
        for user in kubeconfig["users"]:
            user["user"] = {"token": token}
        path = self.folder / f"{account}.json"
        path.write_text(json.dumps(kubeconfig))
        return path

    # Load

    @contextlib.contextmanager
    def load(
        self, title: str, count: int = 10_000, *, path: str = "/", port: int = 8080, tls: bool = False, share: float = 0
    ) -> Iterator[Load]:
        """Load on the first front proxy, through every node, until what the block changes has come to rest.

        Fails unless so many requests were sent and every one was answered, but for a share.
        """
        began = time.monotonic()
        hosts = list(self.cluster.nodes.values())
        load = Load(self.node_port(port), path, kept=6, new=6, pause=0.1, enough=count, hosts=hosts, tls=tls)
        with load:
            load.wait_for(100)
            yield load
            self.settle()
            load.wait_until(lambda report: report.count >= count, f"{count} requests", 300)
        failed, clients = len(load.report.failures), dict(load.report.clients)
        print(f"{title}: {failed} of {load.report.count} failed, answers {clients}, {time.monotonic() - began:.0f} s")
        load.report.must_be_whole(count, share)

    # What changes, and when

    @contextlib.contextmanager
    def config_writes(self) -> Iterator[list[float]]:
        """The times at which a ConfigMap of the mesh changed."""
        writes: list[float] = []

        def note(event: Item) -> None:
            if event["type"] in ("ADDED", "MODIFIED") and "-envoy-" in event["object"].metadata.name:
                writes.append(time.time())

        with watched(note, self.core.list_namespaced_config_map, self.namespace):
            yield writes


@contextlib.contextmanager
def watched(tell: Callable[[Item], None], listed: Callable[..., Any], namespace: str, **options: Any) -> Iterator[None]:
    """Has a function called with each event of listed objects, as it comes, within the block."""
    stream = watch.Watch()
    version = listed(namespace, **options).metadata.resource_version

    def read() -> None:
        # So ends a stream that is stopped.
        with contextlib.suppress(HTTPError):
            for event in stream.stream(
                listed, namespace, resource_version=version, timeout_seconds=PLAY_SECONDS, **options
            ):
                tell(event)

    threading.Thread(target=read, daemon=True).start()
    yield
    stream.stop()


def ask(pod: Pod, path: str = "/", port: int = 8080) -> str:
    """What a pod answers, if it does."""
    connection = http.client.HTTPConnection(pod.address, port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    except OSError:
        return ""
    finally:
        connection.close()


class Watch:
    """Asks pods something all the time, each for itself; when did each answer as wanted, for good?"""

    def __init__(self, pods: set[Pod], question: Callable[[Pod], bool]) -> None:
        self.since: dict[str, float] = {}
        self._ends = threading.Event()
        self._question = question
        self._pods = {pod.name for pod in pods}
        self._threads = [threading.Thread(target=self._ask, args=[pod], daemon=True) for pod in pods]

    def __enter__(self) -> Watch:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_rest: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def wait(self, seconds: float = 30) -> float:
        """When the last pod did."""
        wait_until(lambda: set(self.since) == self._pods, "every pod follows", seconds)
        return max(self.since.values())

    def _ask(self, pod: Pod) -> None:
        while not self._ends.is_set():
            if not self._question(pod):
                self.since.pop(pod.name, None)
            elif pod.name not in self.since:
                self.since[pod.name] = time.time()
            time.sleep(0.03)


def _pod(pod: Any) -> Pod:
    statuses = [*(pod.status.container_statuses or []), *(pod.status.init_container_statuses or [])]
    restarts = sum(status.restart_count for status in statuses)
    return Pod(pod.metadata.name, pod.metadata.uid, pod.status.pod_ip, pod.spec.node_name, restarts)


def answers(mesh: Mesh, path: str) -> set[str]:
    """What the pods of the front proxy answer."""
    return {ask(pod, path) for pod in mesh.pods("front")}


def processes(pod: Pod) -> list[int]:
    """The processes of a pod, on this machine."""
    found = [int(each.name) for each in Path("/proc").glob("[0-9]*") if pod.uid in _text_of(each / "cgroup")]
    assert found
    return found


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def drain(core: client.CoreV1Api, node: str, namespaces: set[str]) -> None:
    """Evict the pods of a node, as fast as their budgets allow; those of other tests stay."""
    pods = core.list_pod_for_all_namespaces(field_selector=f"spec.nodeName={node}").items
    left = [(pod.metadata.name, pod.metadata.namespace) for pod in pods if pod.metadata.namespace in namespaces]
    assert left
    wait_until(lambda: not [left.remove(each) for each in [*left] if evict(core, *each)] and not left, "evicted", 120)


def evict(core: client.CoreV1Api, name: str, namespace: str) -> bool:
    """Whether a pod is on its way, or gone."""
    try:
        core.create_namespaced_pod_eviction(name, namespace, {"metadata": {"name": name, "namespace": namespace}})
    except client.ApiException as problem:
        if problem.status not in (404, 429):
            raise
        return bool(problem.status == 404)  # else its budget says: not yet
    return True
