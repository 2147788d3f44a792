"""Objects of Kubernetes: their order, what of them is compared, and what of them is shown."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import (
    diff,
    essence,
    phase,
    settled,
    shown,
    tells,
    title,
)

Object = dict[str, Any]
PASSWORD = "first line of it\nsecond line"


def make(kind: str, api_version: str = "v1", **more: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "shop"}, **more}


def test_each_finds_what_it_needs() -> None:
    kinds = [
        "v1 Namespace",
        "apiextensions.k8s.io/v1 CustomResourceDefinition",
        "v1 ServiceAccount",
        "v1 Service",
        "cilium.io/v2 CiliumNetworkPolicy",
        "apps/v1 Deployment",
        "cert-manager.io/v1 Certificate",
    ]
    phases = [phase(make(kind, version)) for version, kind in (text.split() for text in kinds)]
    assert phases == sorted(set(phases))
    # A kind of another group that has the same name is another kind.
    assert phase(make("Service", "serving.knative.dev/v1")) == phase(make("Certificate", "cert-manager.io/v1"))


def test_what_the_api_server_writes_is_no_difference() -> None:
    last = {"kubectl.kubernetes.io/last-applied-configuration": "{}"}
    metadata = {"name": "x", "uid": "1", "resourceVersion": "2", "generation": 3, "managedFields": [{}]}
    live = {**make("ConfigMap"), "metadata": {**metadata, "annotations": last, "labels": {}}, "status": {"a": 1}}
    assert essence(live) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    kept = {**live, "metadata": {"name": "x", "annotations": {**last, "mine": "1"}}}
    assert essence(kept)["metadata"]["annotations"] == {"mine": "1"}


def test_a_new_service_is_shown_without_what_is_drawn() -> None:
    spec = {"clusterIP": "10.96.3.4", "clusterIPs": ["10.96.3.4"], "ports": [{"port": 80, "nodePort": 30123}]}
    result = make("Service", spec=spec)
    assert settled(make("Service", spec={"ports": [{"port": 80}]}), result)["spec"] == {"ports": [{"port": 80}]}
    asked = {"clusterIP": "10.96.3.4", "ports": [{"port": 80, "nodePort": 30123}]}
    assert settled(make("Service", spec=asked), result)["spec"] == {name: spec[name] for name in asked}


def test_a_secret_is_compared_and_not_shown() -> None:
    value = base64.b64encode(PASSWORD.encode()).decode()
    before, after = make("Secret", data={"a": value, "b": value}), make("Secret", data={"a": value, "b": "bmV3"})
    entry = diff(before, after)
    assert value not in str(entry)
    old, new = shown(before)["data"], shown(after)["data"]
    assert (old["a"] == new["a"], old["b"] == new["b"]) == (True, False)
    assert title(after) == entry["after_header"] == "Secret shop/x"
    assert shown(make("ConfigMap", data={"a": "b"}))["data"] == {"a": "b"}


@pytest.mark.parametrize("message", ["says second line", r"says first line of it\nsecond", "found &Value{123456}"])
def test_a_message_that_tells_a_secret(message: str) -> None:
    assert tells(make("Secret", stringData={"a": PASSWORD, "n": 123456}), message)
    assert not tells(make("ConfigMap", data={"a": PASSWORD, "n": 123456}), message)


def test_a_message_that_tells_none() -> None:
    assert not tells(make("Secret", stringData={"a": PASSWORD}), "data[a]: a lowercase letter is missing")
