"""Sets of objects: who is in, and who has to go."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube_sets
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import key

Object = dict[str, Any]
MINE, THEIRS = kube_sets.set_id("mesh", "shop"), kube_sets.set_id("mesh", "other")


def make(name: str, kind: str = "ConfigMap", api_version: str = "v1", identity: str | None = MINE) -> Object:
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop"}}
    return kube_sets.member(obj, identity) if identity else obj


def test_the_id_is_that_of_the_specification() -> None:
    # printf mesh.shop.ConfigMap. | openssl dgst -sha256 -binary | basenc --base64url
    assert MINE == "applyset-VjRwz1LN1-AoEWTWyoB-d1MYw_3BujqOlg9HzxHhADw-v1"


def test_only_members_that_are_not_wanted_leave() -> None:
    kept = make("kept")
    found = [
        kept,
        make("gone"),
        make("theirs", identity=THEIRS),
        make("nobody's", identity=None),
        make("shop", "Namespace"),
        make("widgets", "CustomResourceDefinition", "apiextensions.k8s.io/v1"),
        make("web", "Deployment", "apps/v1"),
        make("kept", "Secret"),
    ]
    leaving = kube_sets.leavers(found, {MINE}, {key(kept)})
    # What uses something goes before it.
    assert [(obj["kind"], obj["metadata"]["name"]) for obj in leaving] == [
        ("Deployment", "web"),
        ("ConfigMap", "gone"),
        ("Secret", "kept"),
    ]


def test_a_parent_tells_what_it_was_told() -> None:
    kinds = {("", "ConfigMap"), ("apps", "Deployment"), ("networking.k8s.io", "NetworkPolicy")}
    found = kube_sets.parent("mesh", "shop", kinds, ["shop", "", "other"])
    assert kube_sets.kinds_of(found) == kinds
    assert kube_sets.namespaces_of(found) == {"shop", "other"}
    assert kube_sets.parent_problem(found) is None
    assert kube_sets.is_parent(found)
    assert (kube_sets.kinds_of(None), kube_sets.namespaces_of(None)) == (set(), set())


def test_a_config_map_of_that_name_is_no_parent() -> None:
    found = {"metadata": {"name": "mesh", "namespace": "shop", "labels": None}}
    assert kube_sets.parent_problem(found) == (
        "apply_set: 'mesh': namespace shop has a ConfigMap of that name, which is no parent of a set; "
        "choose another name"
    )
