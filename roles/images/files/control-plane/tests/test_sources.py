# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster says becomes what is sent."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from control_plane import cluster
from control_plane.metrics import Metrics
from control_plane.sources import MeshSource
from control_plane.store import Store

SUFFIX = "default.svc.cluster.local"


def files(workload: str, timeout: str = "1s") -> dict[str, str]:
    upstreams = [{"service": "b", "port": 9001, "timeout": timeout}]
    services = [{"name": "a", "port": 8081, "upstreams": upstreams}, {"name": "b", "port": 8082}]
    return next(dict(item["files"]) for item in mesh_files(build_model(services)) if item["name"] == workload)


def endpoint(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def endpoint_slice(service: str, *endpoints: dict[str, Any], kind: str = "IPv4") -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": service}
    return {"metadata": {"name": f"{service}-x", "labels": labels}, "addressType": kind, "endpoints": list(endpoints)}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [{"address": "10.0.0.1"}]),
        ({"ready": True, "serving": True, "terminating": False}, [{"address": "10.0.0.1"}]),
        ({"ready": False, "serving": False, "terminating": False}, []),
        ({"ready": False, "serving": True, "terminating": True}, [{"address": "10.0.0.1", "health": "DRAINING"}]),
        ({"ready": False, "serving": False, "terminating": True}, []),
    ],
)
def test_replicas_that_end_get_nothing_new_and_others_must_be_ready(conditions: Any, expected: Any) -> None:
    found = cluster.replicas([endpoint_slice("b", endpoint("10.0.0.1", **conditions))], SUFFIX)
    assert found == {f"b.{SUFFIX}": expected}


def test_replicas_of_all_slices_of_a_service() -> None:
    slices = [endpoint_slice("b", endpoint("10.0.0.1")), endpoint_slice("b", endpoint("10.0.0.2"))]
    slices += [endpoint_slice("b", endpoint("fd00::1"), kind="IPv6"), endpoint_slice("c")]
    found = cluster.replicas(slices, SUFFIX)
    assert found == {f"b.{SUFFIX}": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}], f"c.{SUFFIX}": []}


def test_configurations_are_told_from_other_config_maps() -> None:
    labels = {"app.kubernetes.io/name": "a"}
    maps = [
        {"metadata": {"name": "a-envoy-1", "labels": labels}, "data": {"cds.yaml": "x"}},
        {"metadata": {"name": "other", "labels": labels}, "data": {"ca.crt": "x"}},
        {"metadata": {"name": "empty", "labels": labels}},
    ]
    assert cluster.folders(maps) == {"a-envoy-1": ("a", {"cds.yaml": "x"})}


def follow(*said: Callable[[MeshSource], None]) -> tuple[Store, MeshSource, list[list[str]]]:
    """A source that is told these, with time to act after each; which proxies changed each time."""
    changes: list[list[str]] = []

    async def told() -> tuple[Store, MeshSource]:
        store = Store(lambda _seconds, _function: lambda: None)
        source = MeshSource(store, Metrics(), SUFFIX)
        before: dict[str, str] = {}
        for say in said:
            say(source)
            await asyncio.sleep(0.02)
            after = {name: proxy.version for name, proxy in store.proxies.items()}
            changes.append(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
            before = after
        return store, source

    store, source = asyncio.run(told())
    return store, source, changes


REPLICAS = {f"b.{SUFFIX}": [{"address": "10.0.0.1"}]}
BOTH = {"a-1": ("a", files("a")), "b-1": ("b", files("b"))}


def test_nothing_is_sent_before_both_are_known() -> None:
    store, _source, changes = follow(lambda source: source.folders(BOTH), lambda source: source.replicas(REPLICAS))
    assert changes == [[], ["a-1", "b-1"]]
    assert {*store.proxies["a-1"].snapshot["endpoints"]} == {"b"}


def test_only_callers_are_sent_a_service_that_moved() -> None:
    moved = {f"b.{SUFFIX}": [{"address": "10.0.0.2"}], f"x.{SUFFIX}": [{"address": "10.0.0.3"}]}
    _store, _source, changes = follow(
        lambda source: source.folders(BOTH),
        lambda source: source.replicas(REPLICAS),
        lambda source: source.replicas(moved),
    )
    assert changes[-1] == ["a-1"]


def test_a_configuration_that_comes_changes_or_goes() -> None:
    changed = {**BOTH, "a-1": ("a", files("a", timeout="9s")), "a-2": ("a", files("a"))}
    _store, _source, changes = follow(
        lambda source: source.replicas(REPLICAS),
        lambda source: source.folders(BOTH),
        lambda source: source.folders(changed),
        lambda source: source.folders({"b-1": BOTH["b-1"]}),
    )
    assert changes == [[], ["a-1", "b-1"], ["a-1", "a-2"], ["a-1", "a-2"]]


def test_what_cannot_be_sent_leaves_what_is_served() -> None:
    broken = {**BOTH, "a-1": ("a", {**files("a"), "cds.yaml": "resources: [{name: b, nonsense: 1}]"})}
    store, source, changes = follow(
        lambda source: source.replicas(REPLICAS),
        lambda source: source.folders(BOTH),
        lambda source: source.folders(broken),
    )
    assert changes[-1] == []
    assert "a-1" in str(source.problem)
    assert set(store.proxies) == {"a-1", "b-1"}
