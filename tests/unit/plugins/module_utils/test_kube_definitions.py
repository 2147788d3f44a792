"""Lists of definitions."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube_definitions as definitions
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import Resource

Object = dict[str, Any]


def make(name: str = "x", **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}}


def test_lists_are_taken_apart_and_all_that_is_wrong_is_said() -> None:
    inner = {"apiVersion": "v1", "kind": "List", "items": [make("b"), None]}
    found = definitions.read([make("a"), inner, {"kind": "Pod", "metadata": {"generateName": "x-"}}, {}])
    assert [obj["metadata"]["name"] for obj in found[0]] == ["a", "b"]
    generated = "missing, or no text; generateName makes another object each time"
    assert found[1] == [
        "definition[1].items[1]: None is no object; it has to be a dictionary with apiVersion, kind and metadata",
        f"definition[2]: apiVersion and metadata.name of a Pod {generated}",
        "definition[3]: apiVersion and kind and metadata.name missing, or no text",
    ]


def test_namespaces() -> None:
    config_maps, nodes = Resource("v1", "ConfigMap", "configmaps", True), Resource("v1", "Node", "nodes", False)
    assert definitions.with_namespace(make(namespace="a"), config_maps, "b")[0]["metadata"]["namespace"] == "a"
    assert definitions.with_namespace(make(), config_maps, "b")[0]["metadata"]["namespace"] == "b"
    assert "namespace" not in definitions.with_namespace(make(namespace="a"), nodes, "b")[0]["metadata"]
    assert definitions.with_namespace(make(), config_maps, None)[1] == (
        "ConfigMap x: no namespace; give it metadata.namespace, or set namespace for all that have none"
    )


def test_what_is_there_twice() -> None:
    assert definitions.repeated([make(namespace="a"), make(namespace="b"), make(namespace="a")]) == [
        "ConfigMap a/x is in definition 2 times; leave all but one out"
    ]


def test_kinds_that_come_along() -> None:
    spec = {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Widget", "plural": "widgets"}}
    metadata = {"name": "widgets.example.com"}
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": metadata}
    widgets = {**definition, "spec": {**spec, "versions": [{"name": "v1"}]}}
    assert definitions.brought_kinds([widgets, {**definition, "spec": None}, make()]) == {
        ("example.com/v1", "Widget"): Resource("example.com/v1", "Widget", "widgets", True)
    }
