"""ConfigMaps of a mesh: what becomes of each, and how it is written."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import config_maps
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import load
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

Object = dict[str, Any]


def mesh(prefix: str = "/", upstreams: str = "b", **settings: Any) -> dict[str, Object]:
    """The ConfigMaps by workload: of service a, which calls others, and of front f."""
    called = [{"service": name, "port": 9000 + index} for index, name in enumerate(upstreams)]
    services = [{"name": "a", "port": 8081, "image": "i", "upstreams": called}]
    services += [{"name": name, "port": 8081, "image": "i", "sidecar": False} for name in "bc"]
    front = {"name": "f", "listeners": [{"port": 8000}], "routes": [{"prefix": prefix, "service": "a"}]}
    model = build_model(services, [front], {"engine": "kubernetes", "name": "m", "namespace": "n", **settings})
    objects = [item for entry in mesh_manifests(model) for item in entry["objects"]]
    return {config_maps.workload(item): item for item in objects if item["kind"] == "ConfigMap"}


def name(item: Object) -> str:
    return str(item["metadata"]["name"])


def test_a_change_of_routes_keeps_the_config_map() -> None:
    old, new = mesh("/old"), mesh("/new")
    found = config_maps.targets([old["f"]], [new["a"], new["f"]])
    assert found == {name(old["f"]): new["f"]["data"]}
    assert config_maps.changed_files(old["f"]["data"], new["f"]["data"]) == ["rds.front_8000.yaml"]


def test_pods_that_are_to_be_rolled_keep_what_they_were_started_with() -> None:
    old, new = mesh(upstreams="b", stats={"keep": "all"}), mesh(upstreams="c")
    assert name(old["a"]) != name(new["a"])
    found = config_maps.targets([old["a"]], list(new.values()))[name(old["a"])]
    assert found["bootstrap.yaml"] == old["a"]["data"]["bootstrap.yaml"]
    assert found["rds.egress_9000.yaml"] == old["a"]["data"]["rds.egress_9000.yaml"]
    clusters = {item["name"] for item in load(found["cds.yaml"])["resources"]}
    assert {"b", "c"} <= clusters


def test_what_is_of_others_or_in_the_bootstrap_is_left() -> None:
    old, new = mesh(config_delivery="static"), mesh()
    gone = {"metadata": {"name": "x-envoy-1", "labels": {"app.kubernetes.io/name": "x"}}, "data": new["a"]["data"]}
    assert config_maps.targets([old["a"], old["f"], gone], list(new.values())) == {}


def test_steps_that_change_nothing_are_equal() -> None:
    states = config_maps.states(mesh("/old")["f"]["data"], mesh("/new")["f"]["data"], refused=False)
    assert [now != before for before, now in itertools.pairwise(states)] == [
        *[False, False, False],
        *[True, False, False],
    ]
    longer = config_maps.states(mesh(upstreams="b")["a"]["data"], mesh(upstreams="bc")["a"]["data"], refused=False)
    assert sum(now != before for before, now in itertools.pairwise(longer)) == 2


def test_what_was_refused_is_replaced_at_once() -> None:
    old, new = mesh(upstreams="b")["a"]["data"], mesh(upstreams="c")["a"]["data"]
    assert config_maps.states(old, new, refused=True) == [old, new]
    assert config_maps.states(new, new, refused=True) == [new]


def test_only_files_are_written() -> None:
    existing = {
        "metadata": {
            "name": "a-envoy-1",
            "namespace": "n",
            "uid": "u",
            "resourceVersion": "7",
            "labels": {"app.kubernetes.io/name": "a", "applyset.kubernetes.io/part-of": "s", "theirs": "x"},
            "annotations": {"ours": "y"},
            "managedFields": [
                {
                    "manager": "sidecar.mesh",
                    "operation": "Apply",
                    "fieldsV1": {
                        "f:metadata": {
                            "f:labels": {"f:app.kubernetes.io/name": {}, "f:applyset.kubernetes.io/part-of": {}},
                            "f:annotations": {".": {}, "f:ours": {}},
                        }
                    },
                },
                {
                    "manager": "kubectl",
                    "operation": "Update",
                    "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}},
                },
            ],
        },
        "data": {"cds.yaml": "old"},
    }
    assert config_maps.written(existing, {"cds.yaml": "new"}, "sidecar.mesh") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "a-envoy-1",
            "namespace": "n",
            "uid": "u",
            "labels": {"app.kubernetes.io/name": "a", "applyset.kubernetes.io/part-of": "s"},
            "annotations": {"ours": "y"},
        },
        "data": {"cds.yaml": "new"},
    }


@pytest.mark.parametrize(
    ("count", "before", "refused"),
    [(0, {}, []), (1, {}, ["cds.yaml"]), (2, {"cds.yaml": 2}, []), (3, {"cds.yaml": 2}, ["cds.yaml"])],
)
def test_only_new_refusals_count(count: int, before: dict[str, int], refused: list[str]) -> None:
    stats = {"cluster_manager.cds.update_rejected": str(count)}
    assert config_maps.newly_refused(stats, ["cds.yaml"], before) == refused


def test_a_restarted_proxy_counts_from_the_beginning() -> None:
    stats = {"cluster_manager.cds.update_rejected": "1"}
    assert config_maps.newly_refused(stats, ["cds.yaml"], {"cds.yaml": 5}) == ["cds.yaml"]
