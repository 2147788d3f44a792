"""Module apply on a real API server: what a user sees of a change, a refusal, a set, and an end in the middle."""

from __future__ import annotations

import base64
import http.server
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import kube
from behaviour.machine import play, run_module

Object = dict[str, Any]
SECRET = "hunter2-and-more"


@pytest.fixture(scope="module")
def cluster(cluster: Any) -> kube.Cluster:
    return kube.connect({"kubeconfig": str(cluster.kubeconfig)})


@pytest.fixture
def namespace(cluster: kube.Cluster) -> Iterator[str]:
    name = f"apply-{secrets.token_hex(4)}"
    kube.call(cluster, "POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    yield name
    kube.call(cluster, "DELETE", f"/api/v1/namespaces/{name}")


def apply(namespace: str, *definition: Object, check: bool = False, **more: Any) -> Object:
    return run_module("apply", {**more, "namespace": namespace, "definition": list(definition)}, check=check)


def outcomes(result: Object) -> dict[str, str]:
    assert not result.get("failed"), result["msg"]
    return {f"{item['kind']} {item['name']}": item["result"] for item in result["objects"]}


def config_map(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, value: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"password": value}}


def deployment(name: str, image: str, replicas: int = 0, **container: Any) -> Object:
    pod = {"containers": [{"name": "app", "image": image, **container}], "terminationGracePeriodSeconds": 0}
    template = {"metadata": {"labels": {"app": name}}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def names(cluster: kube.Cluster, namespace: str, plural: str = "configmaps") -> set[str]:
    found = kube.pages(cluster, f"/api/v1/namespaces/{namespace}/{plural}")
    return {item["metadata"]["name"] for item in found} - {"kube-root-ca.crt"}


def widgets(group: str) -> Object:
    versions = [{"name": "v1", "served": True, "storage": True}]
    versions[0]["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {"group": group, "scope": "Namespaced", "versions": versions}
    spec["names"] = {"kind": "Widget", "plural": "widgets", "singular": "widget", "listKind": "WidgetList"}
    metadata = {"name": f"widgets.{group}"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": metadata,
        "spec": spec,
    }


# Changes


def test_only_what_differs_is_changed(cluster: kube.Cluster, namespace: str) -> None:
    objects = [config_map(f"map-{number}", number=str(number)) for number in range(6)]
    objects.append({**deployment("web", "web:1"), "metadata": {"name": "web", "labels": {"app": "web"}}})
    first = apply(namespace, *objects, check=True)
    assert set(outcomes(first).values()) == {"created"}
    assert not names(cluster, namespace)
    assert set(outcomes(apply(namespace, *objects)).values()) == {"created"}
    again = apply(namespace, *objects)
    assert (again["changed"], set(outcomes(again).values())) == (False, {"unchanged"})
    objects[2]["data"] = {"number": "seven"}
    for check in (True, False):
        third = apply(namespace, *objects, check=check)
        assert [name for name, result in outcomes(third).items() if result == "changed"] == ["ConfigMap map-2"]
    assert not apply(namespace, *objects)["changed"]


def test_a_diff_shows_a_change_and_neither_noise_nor_secrets(namespace: str, tmp_path: Path) -> None:
    objects = [secret("keys", "first-" + SECRET), config_map("colors", sky="gray"), config_map("same", a="b")]
    assert apply(namespace, *objects)["changed"]
    objects[:2] = [secret("keys", SECRET), config_map("colors", sky="blue")]
    arguments = {"namespace": namespace, "definition": objects}
    output = play(tmp_path, "apply", arguments, "--diff", "--check", "-vvv")
    assert f"--- before: ConfigMap {namespace}/colors" in output
    assert "-  sky: gray\n+  sky: blue" in output
    assert f"Secret {namespace}/keys" in output
    assert "-  password: (hidden, hash " in output
    assert f"ConfigMap {namespace}/same" not in output
    for noise in ("managedFields", "resourceVersion", "creationTimestamp", "uid", SECRET):
        assert noise not in output
    assert base64.b64encode(SECRET.encode()).decode() not in output


def test_namespaces_and_kinds_of_the_list_itself(cluster: kube.Cluster) -> None:
    name, group = f"apply-{secrets.token_hex(4)}", f"apply-{secrets.token_hex(4)}.example.com"
    widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "wheel", "namespace": name}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    objects = [widget, config_map("colors"), widgets(group), namespace]
    try:
        assert set(outcomes(apply(name, *objects, check=True)).values()) == {"created"}
        assert set(outcomes(apply(name, *objects)).values()) == {"created"}
        assert not apply(name, *objects)["changed"]
        # What the list brings is there when the rest is tried; what that refuses is not applied.
        other = {**namespace, "metadata": {"name": f"{name}-2"}}
        bad = apply(f"{name}-2", other, config_map("fine"), {**config_map("bad"), "data": {"a b": "c"}})
        assert "data[a b]" in bad["msg"]
        assert f"Applied before that: Namespace {name}-2." in bad["msg"]
        assert not names(cluster, f"{name}-2")
    finally:
        for path in (f"namespaces/{name}", f"namespaces/{name}-2"):
            kube.call(cluster, "DELETE", f"/api/v1/{path}")
        kube.call(cluster, "DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/widgets.{group}")


def test_only_missing_objects(cluster: kube.Cluster, namespace: str) -> None:
    apply(namespace, config_map("old", state="as it was"))
    result = apply(namespace, config_map("old", state="other"), config_map("new"), only_missing=True)
    assert outcomes(result) == {"ConfigMap old": "left", "ConfigMap new": "created"}
    old = kube.call(cluster, "GET", f"/api/v1/namespaces/{namespace}/configmaps/old")
    assert old["data"] == {"state": "as it was"}


def test_what_is_left_to_do_is_told(namespace: str) -> None:
    one, two = config_map("one"), config_map("two")
    first, again = (apply(namespace, one, two, apply_set="few") for _time in range(2))
    assert [first["settled"], again["settled"]] == [False, True]
    assert [first["leavers"], again["leavers"]] == [[], []]
    fewer = apply(namespace, one, apply_set="few")
    assert [fewer["settled"], fewer["changed"]] == [False, False]
    assert [item["name"] for item in fewer["leavers"]] == ["two"]
    other = apply(namespace, {**one, "data": {"state": "other"}}, two, apply_set="few", only_missing=True)
    assert [other["settled"], other["changed"]] == [False, False]


# Refusals


def test_all_problems_at_once_and_nothing_changed(cluster: kube.Cluster, namespace: str) -> None:
    unknown = {"apiVersion": "example.com/v1", "kind": "Nonsense", "metadata": {"name": "thing"}}
    typo = deployment("web", "web:1")
    typo["spec"]["replicsa"] = 3
    elsewhere = {**config_map("there"), "metadata": {"name": "there", "namespace": f"{namespace}-not"}}
    bad_secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": {"n": 123456789}}
    nameless = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "some-"}}
    objects = [config_map("fine"), config_map("fine"), unknown, typo, elsewhere, bad_secret, nameless]
    result = apply(namespace, *objects)
    assert result["failed"]
    remedy = "install its CustomResourceDefinition, or put that into definition as well"
    assert result["problems"] == [
        "definition[6]: metadata.name of a ConfigMap missing, or no text; generateName makes another object each time",
        f"Nonsense thing: the API server has no kind Nonsense in example.com/v1; {remedy}",
        f"ConfigMap {namespace}/fine is in definition 2 times; leave all but one out",
        *result["problems"][3:],
    ]
    assert f"Deployment {namespace}/web: " in result["msg"]
    assert "replicsa" in result["msg"]
    assert f"namespace {namespace}-not does not exist; create it" in result["msg"]
    assert f"Secret {namespace}/keys: refused as BadRequest" in result["msg"] or "not shown" in result["msg"]
    assert "123456789" not in str(result)
    assert not names(cluster, namespace)


def test_a_conflict_names_the_other_manager(cluster: kube.Cluster, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/configmaps/colors"
    body = {**config_map("colors", sky="gray", sea="gray"), "metadata": {"name": "colors", "namespace": namespace}}
    kube.call(cluster, "PATCH", path, {"fieldManager": "somebody"}, body, kube.APPLY)
    result = apply(namespace, config_map("colors", sky="blue", sea="gray"), config_map("other"))
    told = "to another value; leave that out of definition, or take it over by force_conflicts: true"
    assert result["problems"] == [f"ConfigMap {namespace}/colors: somebody has set .data.sky, {told}"]
    assert names(cluster, namespace) == {"colors"}
    assert apply(namespace, config_map("colors", sky="blue", sea="gray"), force_conflicts=True)["changed"]


@contextmanager
def restricted(cluster: kube.Cluster, namespace: str, rules: list[Object]) -> Iterator[Object]:
    """Options of a service account that has these rights in the namespace, and no others."""
    core, rbac = f"/api/v1/namespaces/{namespace}", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    kube.call(cluster, "POST", f"{core}/serviceaccounts", body={"metadata": {"name": "user"}})
    kube.call(cluster, "POST", f"{rbac}/roles", body={"metadata": {"name": "user"}, "rules": rules})
    subjects = [{"kind": "ServiceAccount", "name": "user", "namespace": namespace}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "user"}
    binding = {"metadata": {"name": "user"}, "subjects": subjects, "roleRef": role}
    kube.call(cluster, "POST", f"{rbac}/rolebindings", body=binding)
    token = kube.call(cluster, "POST", f"{core}/serviceaccounts/user/token", body={})["status"]["token"]
    yield {"host": cluster.url, "api_key": token, "ca_cert": cluster.configuration.ssl_ca_cert}


def test_the_right_that_is_missing_is_named(cluster: kube.Cluster, namespace: str) -> None:
    verbs = ["get", "create", "patch"]  # no list: objects are read one by one then
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]
    objects = [config_map(f"map-{number}") for number in range(6)]
    with restricted(cluster, namespace, rules) as options:
        assert apply(namespace, *objects, **options)["changed"]
        assert not apply(namespace, *objects, **options)["changed"]
        result = apply(namespace, *objects, deployment("web", "web:1"), deployment("web2", "web:1"), **options)
        assert (
            f"system:serviceaccount:{namespace}:user may not get deployments.apps in namespace {namespace}: give it a "
            "Role and a RoleBinding with verb get" in result["msg"]
        )
        assert names(cluster, namespace, "configmaps") == {f"map-{number}" for number in range(6)}
        pruning = apply(namespace, objects[0], apply_set="maps", prune=True, **options)
        assert pruning["changed"]
        assert "may not list configmaps" in apply(namespace, apply_set="maps", prune=True, **options)["msg"]


def test_a_role_and_its_binding_by_who_may_not_bind_other_roles(cluster: kube.Cluster, namespace: str) -> None:
    """The API server tries no binding for them whose role is not there."""
    group = "rbac.authorization.k8s.io"
    maps = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch"]}
    verbs = ["get", "create", "patch"]
    rules = [maps, {"apiGroups": [group], "resources": ["roles", "rolebindings"], "verbs": verbs}]
    metadata = {"name": "reader", "namespace": namespace}
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [{**maps, "verbs": ["get"]}]}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
    }
    with restricted(cluster, namespace, rules) as options:
        assert outcomes(apply(namespace, role, binding, **options)) == {
            "Role reader": "created",
            "RoleBinding reader": "created",
        }
        assert not apply(namespace, role, binding, **options)["changed"]
        more = {**role, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]}
        assert (
            "attempting to grant RBAC permissions not currently held"
            in apply(namespace, more, binding, **options)["msg"]
        )


def test_quota_is_hit_halfway_and_a_second_run_completes(cluster: kube.Cluster, namespace: str) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"services": "3"}},
    }
    apply(namespace, quota)
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/few"
    wait_for(lambda: kube.call(cluster, "GET", path).get("status", {}).get("used"))
    spec = {"clusterIP": "None", "ports": [{"port": 80}]}
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"service-{number}"}, "spec": spec}
        for number in range(5)
    ]
    result = apply(namespace, config_map("early"), *services, deployment("late", "late:1"))
    assert result["failed"]
    assert result["changed"]
    assert "exceeded quota: few" in result["msg"]
    assert f"Applied before that: ConfigMap {namespace}/early" in result["msg"]
    assert f"Deployment {namespace}/late" in result["msg"].rpartition("Not applied")[2]
    assert sorted(outcomes({**result, "failed": False}).values()) == ["created"] * 4
    kube.call(cluster, "PATCH", path, body={"spec": {"hard": {"services": "9"}}}, content_type=kube.MERGE)
    wait_for(lambda: kube.call(cluster, "GET", path)["status"]["hard"]["services"] == "9")
    assert apply(namespace, config_map("early"), *services, deployment("late", "late:1"))["changed"]
    assert not apply(namespace, config_map("early"), *services, deployment("late", "late:1"))["changed"]


def wait_for(probe: Any, seconds: float = 30) -> None:
    until = threading.Event()
    for _attempt in range(int(seconds * 5)):
        if probe():
            return
        until.wait(0.2)
    pytest.fail(f"not within {seconds} s")


class Front(http.server.ThreadingHTTPServer):
    """Passes requests on to the API server, and dies after some that change something."""

    daemon_threads = True

    def __init__(self, cluster: kube.Cluster, changes: int) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.cluster, self.left, self.dead = cluster, changes, False
        self.lock = threading.Lock()
        self.options = {"host": f"http://127.0.0.1:{self.server_port}", "api_key": "any"}
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.left -= self.command == "PATCH" and "dryRun" not in self.path
            self.server.dead = self.server.left < 0
        if self.server.dead:
            self.close_connection = True
            return
        headers = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
        headers |= {name: value for name, value in kube._headers(self.server.cluster, {}).items() if name != "Accept"}
        url = f"{self.server.cluster.url}{self.path}"
        found = self.server.cluster.pool.request(self.command, url, body=body or None, headers=headers)
        self.send_response(found.status)
        self.send_header("Content-Length", str(len(found.data)))
        self.end_headers()
        self.wfile.write(found.data)

    do_GET = do_PATCH = do_DELETE = answer  # noqa: N815


def test_the_api_server_is_gone_halfway_and_a_second_run_completes(cluster: kube.Cluster, namespace: str) -> None:
    objects = [config_map(f"map-{number:02}", number=str(number)) for number in range(40)]
    front = Front(cluster, changes=10)
    result = apply(namespace, *objects, **front.options)
    front.shutdown()
    front.server_close()
    assert "does not answer" in result["msg"]
    assert result["changed"]
    made = {item["name"] for item in result["objects"]}
    assert names(cluster, namespace) == made
    assert len(made) == 10
    assert "and 20 more" in result["msg"].rpartition("Not applied")[2]
    second = outcomes(apply(namespace, *objects))
    assert {name.split()[1] for name, outcome in second.items() if outcome == "unchanged"} == made
    assert len(names(cluster, namespace)) == 40
    gone = apply(namespace, *objects, **front.options)
    assert gone["msg"].endswith("; nothing was changed")


# Sets


def test_prune_removes_what_left_the_set_and_nothing_else(cluster: kube.Cluster, namespace: str) -> None:
    mine = {"apply_set": "mine", "prune": True}
    apply(namespace, config_map("by-hand"))
    apply(namespace, config_map("theirs"), apply_set="other")
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    first = [config_map("stays"), config_map("goes"), secret("keys", SECRET), account]
    assert apply(namespace, *first, **mine)["changed"]
    assert not apply(namespace, *first, **mine)["changed"]
    for check in (True, False):
        result = apply(namespace, config_map("stays"), check=check, **mine)
        pruned = {name for name, outcome in outcomes(result).items() if outcome == "pruned"}
        assert pruned == {"ConfigMap goes", "Secret keys", "ServiceAccount robot"}
    assert names(cluster, namespace) == {"by-hand", "theirs", "other", "stays", "mine"}
    assert "robot" not in names(cluster, namespace, "serviceaccounts")
    assert not apply(namespace, config_map("stays"), **mine)["changed"]
    # A thing of another set is not taken.
    taken = apply(namespace, config_map("stays"), config_map("theirs"), **mine)
    assert f"ConfigMap {namespace}/theirs: belongs to another set" in taken["msg"]
    assert outcomes(apply(namespace, **mine)) == {"ConfigMap stays": "pruned", "ConfigMap mine": "pruned"}
    assert not apply(namespace, **mine)["changed"]
    assert "by-hand" in names(cluster, namespace)


def test_a_set_moves_to_another_namespace(cluster: kube.Cluster, namespace: str) -> None:
    moved = f"{namespace}-moved"
    there = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": moved}}
    mine = {"apply_set": "mine", "prune": True, "previous_namespaces": [namespace]}
    try:
        apply(namespace, config_map("a"), config_map("b"), **mine)
        result = apply(moved, there, config_map("a"), **mine)
        assert [item["namespace"] for item in result["objects"] if item["result"] == "pruned"] == [namespace] * 3
        assert not names(cluster, namespace)
        assert names(cluster, moved) == {"a", "mine"}
        assert not apply(moved, there, config_map("a"), **mine)["changed"]
        # The namespace has the set's label, and stays nevertheless.
        assert "pruned" not in outcomes(apply(moved, config_map("a"), **mine)).values()
    finally:
        kube.call(cluster, "DELETE", f"/api/v1/namespaces/{moved}")


# Rollouts

GOOD = "localhost/sidecar-mesh/pause:1"
TALKS = "localhost/sidecar-mesh/coredns:1"
"""Images that the cluster has. The second says why it ends, without a configuration."""


def test_progress_is_shown_and_old_objects_go_last(cluster: kube.Cluster, namespace: str, tmp_path: Path) -> None:
    stateful = {**deployment("queue", GOOD, 1), "kind": "StatefulSet"}
    daemon = {**deployment("agent", GOOD), "kind": "DaemonSet"}
    del daemon["spec"]["replicas"]
    arguments = {"apply_set": "web", "prune": True, "wait": True, "wait_timeout": 100}
    definition = [deployment("web", GOOD, 3), stateful, daemon, config_map("goes")]
    output = play(tmp_path, "apply", {**arguments, "namespace": namespace, "definition": definition})
    assert f"Deployment {namespace}/web: 3 of 3 replicas updated, 3 available" in output
    assert f"StatefulSet {namespace}/queue: 1 of 1 replica updated, 1 available" in output
    assert f"DaemonSet {namespace}/agent: 2 of 2 pods updated, 2 available" in output
    assert output.count(f"Deployment {namespace}/web: ") > 1
    # The same without what shows it, and with a failure: what is to be pruned stays.
    definition[0]["spec"]["template"]["spec"]["containers"][0]["image"] = "localhost/there-is-none:1"
    failed = apply(namespace, *definition[:-1], **{**arguments, "wait_timeout": 8})
    assert "Not everything was rolled out; nothing was pruned" in failed["msg"]
    assert "is not finished after 8 s" in failed["msg"]
    assert "ErrImagePull" in failed["msg"] or "ImagePullBackOff" in failed["msg"]
    assert "of the pods of before are still there" in failed["msg"]
    assert "goes" in names(cluster, namespace)
    assert {item["name"]: item["done"] for item in failed["rollouts"]} == {"web": False, "queue": True, "agent": True}
    definition[0]["spec"]["template"]["spec"]["containers"][0]["image"] = GOOD
    output = play(tmp_path, "apply", {**arguments, "namespace": namespace, "definition": definition[:-1]}, "--diff")
    assert f"--- before: ConfigMap {namespace}/goes" in output
    assert "goes" not in names(cluster, namespace)
    assert not apply(namespace, *definition[:-1], **arguments)["changed"]


def test_a_crash_and_a_refused_pod_are_told_before_the_time_is_over(cluster: kube.Cluster, namespace: str) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "2"}}}
    apply(namespace, quota)
    path = f"/api/v1/namespaces/{namespace}/resourcequotas/few"
    wait_for(lambda: kube.call(cluster, "GET", path).get("status", {}).get("used"))
    crashing = deployment("app", TALKS, 1, args=["-conf", "/there/is/none"])
    result = apply(namespace, crashing, deployment("many", GOOD, 3), wait=True, wait_timeout=115)
    assert "the rollout will not finish" in result["msg"]
    assert "pods are refused: FailedCreate" in result["msg"]
    assert "exceeded quota: few" in result["msg"]
    # Without a readiness probe it is available for an instant, again and again.
    second = apply(namespace, crashing, deployment("many", GOOD, 1), wait=True, wait_timeout=115)
    assert (
        f"Deployment {namespace}/app: 1 of 1 replica updated, 0 available; the rollout will not finish" in second["msg"]
    )
    assert "container app: crashes: exit code 1, restarted " in second["msg"]
    assert "log: " in second["msg"]
    assert "/there/is/none" in second["msg"]
    assert f"Deployment {namespace}/many" not in second["msg"]
    kube.call(cluster, "PATCH", path, body={"spec": {"hard": {"pods": "9"}}}, content_type=kube.MERGE)
    third = apply(namespace, deployment("app", GOOD, 1), deployment("many", GOOD, 1), wait=True, wait_timeout=60)
    assert outcomes(third) == {"Deployment app": "changed", "Deployment many": "unchanged"}
