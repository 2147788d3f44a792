"""What does not fit between Cilium's settings, a cluster and the chart."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_cluster import chart_problems, cluster_problems, minor
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings

INSTALLED = {
    "chart": "cilium-1.20.0",
    "values": {"ipam": {"operator": {"clusterPoolIPv4PodCIDRList": ["10.42.0.0/16"]}}},
}


def settings(text: str = "") -> dict[str, Any]:
    return check_settings({"version": "1.20.0", "pod_cidr": "10.42.0.0/16", **(yaml.safe_load(text) or {})})


def node(name: str, *addresses: str) -> dict[str, Any]:
    entries = [{"type": "InternalIP", "address": address} for address in addresses]
    return {"metadata": {"name": name}, "status": {"addresses": [*entries, {"type": "Hostname", "address": name}]}}


@pytest.mark.parametrize(
    ("text", "nodes", "expected"),
    [
        ("", [node("a", "192.0.2.1", "2001:db8::1"), node("b")], []),
        (
            "",
            [node("a", "10.42.0.7")],
            [
                (
                    "cilium_pod_cidr: 10.42.0.0/16 holds 10.42.0.7, the address of node a; give a network that is in "
                    "use nowhere "
                    "else"
                )
            ],
        ),
        (
            "lb_pools: [{name: p, blocks: [{start: 192.0.2.1, stop: 192.0.2.9}]}]",
            [node("a", "192.0.2.9"), node("b", "192.0.2.10")],
            ["cilium_lb_pools[0].blocks: 192.0.2.1 to 192.0.2.9 holds 192.0.2.9, the address of node a"],
        ),
        (
            "pod_cidr: 10.42.0.0/24\nnode_count: 2",
            [],
            [
                (
                    "cilium_pod_cidr: 10.42.0.0/24 has a /24 for 1 node, not for 2; give a wider network, or a "
                    "greater "
                    "cilium_values.ipam.operator.clusterPoolIPv4MaskSize"
                )
            ],
        ),
        ("pod_cidr: 10.42.0.0/24\nvalues: {ipam: {operator: {clusterPoolIPv4MaskSize: 26}}}\nnode_count: 4", [], []),
        ("pod_cidr: [10.42.0.0/24, 10.42.1.0/24]\nnode_count: 2", [], []),
        ("pod_cidr: [10.42.0.0/16, 2001:db8::/56]\nnode_count: 200", [], []),
    ],
)
def test_nodes(text: str, nodes: list[dict[str, Any]], expected: list[str]) -> None:
    assert list(cluster_problems(settings(text), nodes, {})) == expected


@pytest.mark.parametrize(
    ("text", "release", "expected"),
    [
        ("", INSTALLED, []),
        ("version: 1.20.3", INSTALLED, []),
        ("version: 1.20.0", {"chart": "cilium-1.20.0-rc.1"}, []),
        ("pod_cidr: [10.42.0.0/16, 10.43.0.0/16]", INSTALLED, []),
        (
            "version: 1.21.0",
            INSTALLED,
            [
                (
                    "cilium_version: 1.21.0 cannot replace 1.20.0, which is installed. Cilium is upgraded one minor "
                    "version at a "
                    "time, each after its own preflight, which this role does not do yet. Give a version 1.20.x"
                )
            ],
        ),
        (
            "pod_cidr: 10.43.0.0/16",
            INSTALLED,
            [
                (
                    "cilium_pod_cidr: 10.42.0.0/16 is missing, from which pods of this cluster have their addresses; "
                    "keep it, and "
                    "add networks behind it"
                )
            ],
        ),
        (
            "",
            {"chart": "nginx-1.20.0"},
            ["cilium_release: is a release of chart 'nginx-1.20.0', not of Cilium; give another name"],
        ),
    ],
)
def test_the_release(text: str, release: dict[str, Any], expected: list[str]) -> None:
    assert list(cluster_problems(settings(text), [], release)) == expected


@pytest.mark.parametrize(
    ("chart", "expected"),
    [
        ({}, []),
        ({"name": "cilium", "version": "1.20.0", "unknown": []}, []),
        (
            {
                "name": "cilium",
                "version": "1.19.6",
                "unknown": [{"path": "a.b", "nearest": "a.c"}, {"path": "d", "nearest": ""}],
            },
            [
                (
                    "cilium_version: 1.20.0 is not the version of cilium_chart, 1.19.6; set cilium_version: 1.19.6, "
                    "or name "
                    "another chart"
                ),
                (
                    "cilium_values.a.b: chart 1.19.6 knows no such value, perhaps a.c; correct it, or name it in "
                    "cilium_values_unchecked to give it nevertheless"
                ),
                (
                    "cilium_values.d: chart 1.19.6 knows no such value; correct it, or name it in "
                    "cilium_values_unchecked to give "
                    "it nevertheless"
                ),
            ],
        ),
        (
            {"name": "nginx", "version": "1.20.0", "unknown": [{"path": "a", "nearest": ""}]},
            [
                "cilium_chart: is the chart 'nginx', not Cilium's; name that",
                (
                    "cilium_values.a: chart 1.20.0 knows no such value; correct it, or name it in "
                    "cilium_values_unchecked to give "
                    "it nevertheless"
                ),
            ],
        ),
    ],
)
def test_the_chart(chart: dict[str, Any], expected: list[str]) -> None:
    assert list(chart_problems(settings(), chart)) == expected


def test_minor() -> None:
    assert [minor(text) for text in ("1.20.3", "1.21.0-rc.1")] == ["1.20", "1.21"]
