"""What stands in config.yaml, and what may not."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config
from unit.k3s_cluster import INPUTS


def inputs(**changed: Any) -> dict[str, Any]:
    return {**INPUTS, **changed}


def test_a_server_for_cilium() -> None:
    assert k3s_config.node_config("server", inputs(), {"cluster-init": True}) == {
        "cluster-cidr": "10.42.0.0/16",
        "cluster-init": True,
        "disable": ["traefik", "servicelb"],
        "disable-kube-proxy": True,
        "disable-network-policy": True,
        "flannel-backend": "none",
        "service-cidr": "10.43.0.0/16",
    }


def test_an_agent_has_nothing_that_servers_decide() -> None:
    joins = {"server": "https://192.0.2.1:6443"}
    assert k3s_config.node_config("agent", inputs(node_ip="192.0.2.9"), joins) == {**joins, "node-ip": "192.0.2.9"}


def test_the_users_keys_are_merged_and_lists_of_both_united() -> None:
    given = {"disable": ["metrics-server", "traefik"], "kubelet-arg": ["max-pods=50"], "node-label": "tier=edge,zone=a"}
    config = k3s_config.node_config("server", inputs(server_config=given, node_labels={"zone": "a"}), {})
    assert config["disable"] == ["traefik", "servicelb", "metrics-server"]
    assert config["kubelet-arg"] == ["max-pods=50"]
    assert config["node-label"] == ["zone=a", "tier=edge"]


def test_labels_that_kubelets_may_not_set_are_left_to_the_api() -> None:
    labels = {
        "node-role.kubernetes.io/worker": "",
        "node.kubernetes.io/pool": "a",
        "topology.kubernetes.io/zone": "b",
        "example.com/disk": "ssd",
        "tier": "edge",
    }
    assert k3s_config.node_config("agent", inputs(node_labels=labels), {})["node-label"] == [
        "example.com/disk=ssd",
        "node.kubernetes.io/pool=a",
        "tier=edge",
        "topology.kubernetes.io/zone=b",
    ]


OTHER_NETWORKS = "remove it, or choose another k3s_network (flannel, none)"
OWN_PORT = "cannot be set, because Cilium and this role reach the API server by k3s' own port; remove it"


@pytest.mark.parametrize(
    ("network", "key", "value", "problem"),
    [
        ("cilium", "flannel-backend", "vxlan", f"'vxlan': k3s_network: cilium needs none here; {OTHER_NETWORKS}"),
        ("cilium", "disable-kube-proxy", False, f"False: k3s_network: cilium needs true here; {OTHER_NETWORKS}"),
        ("flannel", "cluster-cidr", "10.0.0.0/8", "has a variable of its own; set k3s_cluster_cidr instead"),
        ("none", "token", "x", "has a variable of its own; set k3s_token instead"),
        ("none", "https-listen-port", 8443, f"8443: {OWN_PORT}"),
        ("none", "node-label+", ["a=b"], "lists are added to anyway; write node-label"),
    ],
)
def test_keys_that_would_break_the_order(network: str, key: str, value: Any, problem: str) -> None:
    found = k3s_config.refused("server", inputs(network=network, server_config={key: value}))
    assert list(found) == [f"k3s_server_config.{key}: {problem}"]


def test_keys_that_change_nothing_are_let_through() -> None:
    given = {"flannel-backend": "none", "disable-kube-proxy": True, "secrets-encryption": True}
    assert list(k3s_config.refused("server", inputs(server_config=given))) == []
    assert (
        list(
            k3s_config.refused(
                "server", inputs(network="flannel", server_config={"flannel-backend": "wireguard-native"})
            )
        )
        == []
    )


def test_the_token_is_never_told() -> None:
    problem = next(k3s_config.refused("server", inputs(server_config={"token": "s3cr3t"})))
    assert "s3cr3t" not in problem


def test_no_proxy_has_what_is_never_behind_one() -> None:
    assert k3s_config.environment(inputs(no_proxy=["localhost"]), ["192.0.2.0/24"]) == {}
    made = k3s_config.environment(
        inputs(https_proxy="http://proxy:3128", no_proxy=".example.com,localhost"), ["192.0.2.0/24"]
    )
    assert made == {
        "HTTPS_PROXY": "http://proxy:3128",
        "NO_PROXY": ".example.com,localhost,127.0.0.0/8,::1,.svc,.cluster.local,10.42.0.0/16,10.43.0.0/16,192.0.2.0/24",
    }
