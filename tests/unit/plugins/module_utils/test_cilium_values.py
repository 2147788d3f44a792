"""What Cilium's chart is given."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_objects import address_objects
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import (
    chart_values,
    differences,
    merge,
    replicas_for,
)

BASE: dict[str, Any] = {"version": "1.20.0", "pod_cidr": "10.42.0.0/16"}


def values(text: str = "", installed: str | None = None) -> dict[str, Any]:
    return chart_values(check_settings({**BASE, **(yaml.safe_load(text) or {})}), installed)


def test_values_of_k3s() -> None:
    found = values("api_host: 127.0.0.1\napi_port: 6444\nkube_proxy_replacement: true\nnode_count: 3", "1.20")
    assert found == {
        "upgradeCompatibility": "1.20",
        "ipam": {"operator": {"clusterPoolIPv4PodCIDRList": ["10.42.0.0/16"]}},
        "kubeProxyReplacement": True,
        "k8sServiceHost": "127.0.0.1",
        "k8sServicePort": 6444,
        "socketLB": {"hostNamespaceOnly": True},
        "operator": {"replicas": 2, "rollOutPods": True},
        "rollOutCiliumPods": True,
        "envoy": {"rollOutPods": True},
        "hubble": {
            "enabled": True,
            "relay": {"enabled": False, "rollOutPods": True},
            "ui": {"enabled": False, "rollOutPods": True},
            "tls": {"auto": {"enabled": True, "method": "cronJob"}},
        },
    }


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("", "k8sServiceHost", None),
        ("", "kubeProxyReplacement", False),
        ("", "upgradeCompatibility", None),
        ("node_count: 1", "operator.replicas", 1),
        ("node_count: 1\noperator_replicas: 3", "operator.replicas", 3),
        ("operator_tolerations: [{operator: Exists}]", "operator.tolerations", [{"operator": "Exists"}]),
        ("hubble: {enabled: false}", "hubble", {"enabled": False}),
        ("hubble: {relay: true, metrics: [dns, drop]}", "hubble.metrics.enabled", ["dns", "drop"]),
        ("wireguard: true", "encryption", {"enabled": True, "type": "wireguard"}),
        ("pod_cidr: [10.42.0.0/16, 2001:db8:42::/56]", "ipv6.enabled", True),
        ("pod_cidr: [10.42.0.0/16, 2001:db8:42::/56]", "ipam.operator.clusterPoolIPv6MaskSize", 72),
        ("pod_cidr: 2001:db8:42::/112", "ipam.operator.clusterPoolIPv6MaskSize", 120),
        ("pod_cidr: 2001:db8:42::/112", "ipv4.enabled", False),
        # The user's values come last; lists are replaced, and null is given to Helm.
        ("values: {socketLB: {tracing: false}}", "socketLB", {"hostNamespaceOnly": True, "tracing": False}),
        (
            "operator_tolerations: [{operator: Exists}]\nvalues: {operator: {tolerations: []}}",
            "operator.tolerations",
            [],
        ),
        ("values: {rollOutCiliumPods: null}", "rollOutCiliumPods", None),
        ("values: {hubble: {tls: {auto: {method: certmanager}}}}", "hubble.tls.auto.method", "certmanager"),
    ],
)
def test_a_value(text: str, path: str, expected: Any) -> None:
    found: Any = values(text)
    for key in path.split("."):
        found = found.get(key)
    assert found == expected


@pytest.mark.parametrize(
    ("l2", "qps"),
    [("{}", 30), ("{services: 100}", 210), ("{services: 10, retry_period: 2s, renew_deadline: 2900ms}", 15)],
)
def test_agents_may_renew_the_leases_of_all_services(l2: str, qps: int) -> None:
    found = values(f"l2: {l2}\nkube_proxy_replacement: true\napi_host: 127.0.0.1")
    assert found["k8sClientRateLimit"] == {"qps": qps, "burst": 2 * qps}


def test_merge_changes_neither() -> None:
    base, over = {"a": {"b": [1]}}, {"a": {"c": {"d": 1}}}
    before = copy.deepcopy((base, over))
    merged = merge(base, over)
    merged["a"]["c"]["d"] = 2
    merged["a"]["b"].append(2)
    assert (base, over) == before


@pytest.mark.parametrize(("nodes", "replicas"), [(0, 1), (1, 1), (2, 2), (7, 2)])
def test_replicas_of_the_operator(nodes: int, replicas: int) -> None:
    assert replicas_for(nodes) == replicas


def test_differences() -> None:
    before = {"a": {"b": 1, "c": [1]}, "gone": None}
    after = {"a": {"b": 2, "c": [1], "d": "x"}}
    assert list(differences(before, after)) == ["a.b: 1 -> 2", 'a.d: not set -> "x"', "gone: null -> not set"]


def test_pools_and_their_announcement() -> None:
    text = """
    api_host: 127.0.0.1
    kube_proxy_replacement: true
    lb_pools:
      - name: public
        blocks: [{cidr: 192.0.2.0/28}, {start: 198.51.100.1, stop: 198.51.100.9}]
        service_selector: {app: front}
    l2: {interfaces: [^eth0$], node_selector: {matchExpressions: [{key: edge, operator: Exists}]}}
    """
    pool, policy = address_objects(check_settings({**BASE, **yaml.safe_load(text)}))
    assert (pool["apiVersion"], pool["kind"], pool["metadata"]["name"]) == (
        "cilium.io/v2",
        "CiliumLoadBalancerIPPool",
        "public",
    )
    assert pool["spec"] == {
        "blocks": [{"cidr": "192.0.2.0/28"}, {"start": "198.51.100.1", "stop": "198.51.100.9"}],
        "serviceSelector": {"matchLabels": {"app": "front"}},
    }
    assert (policy["apiVersion"], policy["kind"]) == ("cilium.io/v2alpha1", "CiliumL2AnnouncementPolicy")
    assert policy["spec"] == {
        "loadBalancerIPs": True,
        "interfaces": ["^eth0$"],
        "nodeSelector": {"matchExpressions": [{"key": "edge", "operator": "Exists"}]},
    }
    assert address_objects(check_settings(BASE)) == []
