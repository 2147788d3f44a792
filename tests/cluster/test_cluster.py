"""That the cluster is a real one: what the tests of the engine "kubernetes" take for granted."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client, stream

from cluster import images
from cluster.handle import Cluster

PAGE = "/etc/hostname"
SERVER = "import http.server, os; os.chdir('/'); http.server.test(http.server.SimpleHTTPRequestHandler, port=8080)"


def deployment(name: str, node: str | None = None, **container: Any) -> dict[str, Any]:
    """A web server of one pod, which a restricted namespace admits."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    pod = {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "server",
                "image": images.PYTHON,
                "command": ["python", "-c", SERVER],
                "securityContext": restricted,
                "readinessProbe": {"httpGet": {"path": PAGE, "port": 8080}, "periodSeconds": 1},
                "volumeMounts": [{"name": "own", "mountPath": "/own"}],
                **container,
            }
        ],
        "volumes": [{"name": "own", "emptyDir": {}}],
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template}}


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 8080}], **spec}}


def ready_pod(cluster: Cluster, namespace: str, name: str, seconds: float = 60) -> client.V1Pod:
    """The pod of a deployment, once it is ready."""

    def found() -> Any:
        pods = client.CoreV1Api(cluster.api).list_namespaced_pod(namespace, label_selector=f"app={name}").items
        return next((pod for pod in pods if is_ready(pod) and not pod.metadata.deletion_timestamp), None)

    return eventually(found, seconds)


def is_ready(pod: client.V1Pod) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions or [])


def eventually(probe: Callable[[], Any], seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while not (found := probe()):
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.5)
    return found


def execute(cluster: Cluster, namespace: str, pod: str, *command: str) -> str:
    """Run a command in a pod's first container, as `kubectl exec` does; return all that it says."""
    with client.ApiClient(cluster.api.configuration) as own:  # stream changes the client it is given
        run = client.CoreV1Api(own).connect_get_namespaced_pod_exec
        return str(stream.stream(run, pod, namespace, command=[*command], stdout=True, stderr=True))


def fetched(cluster: Cluster, namespace: str, pod: str, url: str) -> str:
    """What a pod gets from a URL: "200", or the error."""
    script = (
        "import sys, urllib.request as r\n"
        "try: print(r.urlopen(sys.argv[1], timeout=2).status)\n"
        "except OSError as e: print(e)"
    )
    return execute(cluster, namespace, pod, "python", "-c", script, url).strip()


def test_pods_find_each_other_by_name_across_nodes(cluster: Cluster, namespace: str) -> None:
    apps, core = client.AppsV1Api(cluster.api), client.CoreV1Api(cluster.api)
    nodes = list(cluster.nodes)
    apps.create_namespaced_deployment(namespace, deployment("near", nodes[0]))
    apps.create_namespaced_deployment(namespace, deployment("far", nodes[-1]))
    core.create_namespaced_service(namespace, service("far"))
    core.create_namespaced_service(namespace, service("near"))
    near = ready_pod(cluster, namespace, "near").metadata.name
    ready_pod(cluster, namespace, "far")
    for host in ("far", "near", f"far.{namespace}.svc.cluster.local"):
        eventually(lambda host=host: fetched(cluster, namespace, near, f"http://{host}:8080{PAGE}") == "200", 10)
    assert "Name or service not known" in fetched(cluster, namespace, near, "http://nowhere.example")


def test_a_node_port_answers_on_every_node_and_the_api_server_reaches_the_pod(cluster: Cluster, namespace: str) -> None:
    core = client.CoreV1Api(cluster.api)
    client.AppsV1Api(cluster.api).create_namespaced_deployment(namespace, deployment("web"))
    made = core.create_namespaced_service(namespace, service("web", type="NodePort"))
    pod = ready_pod(cluster, namespace, "web")
    for address in cluster.nodes.values():
        url = f"http://{address}:{made.spec.ports[0].node_port}{PAGE}"
        assert eventually(lambda url=url: status_of(url) == 200, 10)
    asked = core.connect_get_namespaced_pod_proxy_with_path
    answer = asked(f"{pod.metadata.name}:8080", namespace, PAGE[1:], _preload_content=False)
    assert answer.data.decode().strip() == pod.metadata.name
    assert "GET /etc/hostname" in core.read_namespaced_pod_log(pod.metadata.name, namespace)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status)
    except OSError:
        return 0


def test_probes_decide_who_is_asked_and_who_starts_again(cluster: Cluster, namespace: str) -> None:
    liveness = {"exec": {"command": ["test", "!", "-e", "/own/dead"]}, "periodSeconds": 1, "failureThreshold": 1}
    readiness = {"exec": {"command": ["test", "!", "-e", "/own/busy"]}, "periodSeconds": 1, "failureThreshold": 1}
    web = deployment("web", livenessProbe=liveness, readinessProbe=readiness)
    client.AppsV1Api(cluster.api).create_namespaced_deployment(namespace, web)
    pod = ready_pod(cluster, namespace, "web").metadata.name

    def seen() -> client.V1Pod:
        return client.CoreV1Api(cluster.api).read_namespaced_pod(pod, namespace)

    execute(cluster, namespace, pod, "touch", "/own/busy")
    eventually(lambda: not is_ready(seen()))
    execute(cluster, namespace, pod, "rm", "/own/busy")
    eventually(lambda: is_ready(seen()))
    execute(cluster, namespace, pod, "touch", "/own/dead")
    eventually(lambda: seen().status.container_statuses[0].restart_count > 0)


@pytest.mark.alone
def test_a_drained_node_sends_its_pods_to_the_other(cluster: Cluster, namespace: str) -> None:
    core = client.CoreV1Api(cluster.api)
    client.AppsV1Api(cluster.api).create_namespaced_deployment(namespace, deployment("web"))
    before = ready_pod(cluster, namespace, "web")
    core.patch_node(before.spec.node_name, {"spec": {"unschedulable": True}})
    try:
        core.create_namespaced_pod_eviction(
            before.metadata.name, namespace, {"metadata": {"name": before.metadata.name, "namespace": namespace}}
        )
        assert ready_pod(cluster, namespace, "web").spec.node_name != before.spec.node_name
    finally:
        core.patch_node(before.spec.node_name, {"spec": {"unschedulable": None}})


@pytest.mark.alone
def test_pods_serve_while_the_api_server_is_away(cluster: Cluster, namespace: str) -> None:
    core = client.CoreV1Api(cluster.api)
    client.AppsV1Api(cluster.api).create_namespaced_deployment(namespace, deployment("web"))
    made = core.create_namespaced_service(namespace, service("web", type="NodePort"))
    ready_pod(cluster, namespace, "web")
    url = f"http://{next(iter(cluster.nodes.values()))}:{made.spec.ports[0].node_port}{PAGE}"
    assert eventually(lambda: status_of(url) == 200, 10)
    cluster.stop("apiserver")
    try:
        with pytest.raises(Exception, match="Connection refused"):
            client.VersionApi(cluster.api).get_code()
        assert status_of(url) == 200
    finally:
        cluster.start("apiserver")
    eventually(lambda: answers(cluster), 60)


def answers(cluster: Cluster) -> bool:
    try:
        return bool(client.CoreV1Api(cluster.api).list_node().items)
    except Exception:  # noqa: BLE001 - whatever it is, the API server is not there yet
        return False


def test_a_policy_closes_what_it_does_not_name(cluster: Cluster, namespace: str) -> None:
    """On one node and across both; probes and what was allowed go on."""
    apps, core = client.AppsV1Api(cluster.api), client.CoreV1Api(cluster.api)
    nodes = list(cluster.nodes)
    names = {"web": nodes[0], "friend": nodes[0], "friend-far": nodes[-1], "foe": nodes[0], "foe-far": nodes[-1]}
    for name, node in names.items():
        apps.create_namespaced_deployment(namespace, deployment(name, node))
    core.create_namespaced_service(namespace, service("web"))
    pods = {name: ready_pod(cluster, namespace, name, 120).metadata.name for name in names}

    def reached(name: str) -> bool:
        return fetched(cluster, namespace, pods[name], f"http://web:8080{PAGE}") == "200"

    callers = [name for name in names if name != "web"]
    eventually(lambda: all(reached(name) for name in callers))
    friends = [{"podSelector": {"matchLabels": {"app": name}}} for name in callers if name.startswith("friend")]
    spec = {
        "podSelector": {"matchLabels": {"app": "web"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": friends, "ports": [{"port": 8080}]}],
    }
    policy = {"metadata": {"name": "web"}, "spec": spec}
    client.NetworkingV1Api(cluster.api).create_namespaced_network_policy(namespace, policy)
    eventually(lambda: not reached("foe") and not reached("foe-far"))
    assert reached("friend")
    assert reached("friend-far")
    web = core.read_namespaced_pod(pods["web"], namespace)
    assert is_ready(web), "the kubelet's probes pass"
    client.NetworkingV1Api(cluster.api).delete_namespaced_network_policy("web", namespace)
    eventually(lambda: reached("foe") and reached("foe-far"))


def test_a_namespace_refuses_pods_that_are_not_restricted(cluster: Cluster, namespace: str) -> None:
    pod = {"metadata": {"name": "root"}, "spec": {"containers": [{"name": "root", "image": images.PYTHON}]}}
    with pytest.raises(client.ApiException, match="violates PodSecurity"):
        client.CoreV1Api(cluster.api).create_namespaced_pod(namespace, pod)
