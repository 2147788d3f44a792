"""Who begins a cluster, who joins whom, and what each node is told."""

from __future__ import annotations

from typing import Any

import pytest
from unit.k3s_cluster import Item, cluster, member, node, plan

FIRST = "https://192.0.2.1:6443"
TOKEN = "/etc/rancher/k3s/token"


def joins(result: Item) -> dict[str, Any]:
    """Of each node the server it names, or whether it begins a cluster."""
    configs = {host: one["config"] for host, one in result["nodes"].items()}
    return {host: config.get("server", config.get("cluster-init", "alone")) for host, config in configs.items()}


CASES: list[tuple[str, dict[str, Item], str, dict[str, Any]]] = [
    ("one server", cluster(node("server", 1)), "server-1", {"server-1": "alone"}),
    (
        "a server and an agent",
        cluster(node("server", 1), node("agent", 9)),
        "server-1",
        {"server-1": "alone", "agent-9": FIRST},
    ),
    (
        "three servers",
        cluster(node("server", 1), node("server", 2), node("server", 3)),
        "server-1",
        {"server-1": True, "server-2": FIRST, "server-3": FIRST},
    ),
    (
        "servers that join one with SQLite, which becomes etcd",
        cluster(member("server", 1, datastore="sqlite"), node("server", 2), node("server", 3)),
        "server-1",
        {"server-1": True, "server-2": FIRST, "server-3": FIRST},
    ),
    (
        "the first server is new, and the others run the cluster: it must not begin another",
        cluster(node("server", 1), member("server", 2), member("server", 3, server="https://192.0.2.2:6443")),
        "server-2",
        {"server-1": "https://192.0.2.2:6443", "server-2": True, "server-3": "https://192.0.2.2:6443"},
    ),
    (
        "and once it has joined, nothing changes any more",
        cluster(
            member("server", 1, server="https://192.0.2.2:6443"),
            member("server", 2),
            member("server", 3, server="https://192.0.2.2:6443"),
        ),
        "server-1",
        {"server-1": "https://192.0.2.2:6443", "server-2": True, "server-3": "https://192.0.2.2:6443"},
    ),
    (
        "the first server is down: an agent joins one that runs",
        cluster(member("server", 1, active="failed"), member("server", 2, server=FIRST), node("agent", 9)),
        "server-2",
        {"server-1": True, "server-2": FIRST, "agent-9": "https://192.0.2.2:6443"},
    ),
    (
        "a first run that was cut off before k3s began",
        cluster(node("server", 1, k3s={"version": "v1.34.3+k3s1", "configuration": "ours"}), node("server", 2)),
        "server-1",
        {"server-1": True, "server-2": FIRST},
    ),
    (
        "an agent whose server left the inventory",
        cluster(member("server", 2, server=FIRST), member("agent", 9, server=FIRST)),
        "server-2",
        {"server-2": True, "agent-9": "https://192.0.2.2:6443"},
    ),
]


@pytest.mark.parametrize(("nodes", "leader", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_who_joins_whom(nodes: dict[str, Item], leader: str, expected: dict[str, Any]) -> None:
    result = plan(nodes)
    assert (result["leader"], joins(result)) == (leader, expected)


def test_only_one_server_ever_begins() -> None:
    """Whatever of three servers is there, at most one of those without data has no server to join."""
    kinds = (lambda n: node("server", n), lambda n: member("server", n, server=FIRST), lambda n: member("server", n))
    for first in kinds:
        for second in kinds:
            for third in kinds:
                nodes = cluster(first(1), second(2), third(3))
                result = plan(nodes)
                fresh = [host for host in nodes if not nodes[host]["k3s"]["datastore"]]
                begin = [host for host in fresh if "server" not in result["nodes"][host]["config"]]
                assert len(begin) == (1 if len(fresh) == 3 else 0)


def test_a_load_balancer_is_what_everybody_names() -> None:
    inputs = {"api_address": "k3s.example.com"}
    nodes = cluster(node("server", 1, inputs=inputs), node("server", 2, inputs=inputs), node("agent", 9, inputs=inputs))
    result = plan(nodes)
    url = "https://k3s.example.com:6443"
    assert joins(result) == {"server-1": True, "server-2": url, "agent-9": url}
    assert result["kubeconfig_url"] == url
    assert "k3s.example.com" in result["nodes"]["server-1"]["config"]["tls-san"]


def test_the_token_of_the_user_is_given_to_the_first_and_that_of_the_cluster_to_others() -> None:
    nodes = cluster(*(node("server", n, inputs={"token_given": True}) for n in (1, 2)), node("agent", 9))
    planned = plan(nodes)["nodes"]
    assert {host: one["config"]["token-file"] for host, one in planned.items()} == dict.fromkeys(planned, TOKEN)
    assert {host: one["begins"] for host, one in planned.items()} == {
        "server-1": True,
        "server-2": False,
        "agent-9": False,
    }
    assert "token-file" not in plan(cluster(node("server", 1)))["nodes"]["server-1"]["config"]


def test_nodes_lack_a_token_that_is_not_the_clusters() -> None:
    tokens = {"server": "s", "agent": "a"}
    given: dict[str, dict[str, str]] = {"server-2": {**tokens, "given": "s"}, "server-3": {**tokens, "given": "old"}}
    nodes = cluster(
        node("server", 1, k3s={"tokens": tokens, "datastore": "etcd"}),
        *(node("server", n, k3s={"tokens": given[f"server-{n}"]}) for n in (2, 3)),
        node("agent", 8, k3s={"tokens": {"given": "a"}}),
        node("agent", 9),
    )
    assert [host for host, one in plan(nodes)["nodes"].items() if one["lacks_token"]] == ["server-3", "agent-9"]
    new = cluster(node("server", 1), node("server", 2), node("agent", 9))
    assert [host for host, one in plan(new)["nodes"].items() if one["lacks_token"]] == ["server-2", "agent-9"]


def test_a_database_of_the_users_own() -> None:
    inputs = {"server_config": {"datastore-endpoint": "postgres://db"}}
    result = plan(cluster(*(node("server", n, inputs=inputs) for n in (1, 2))))
    assert result["datastore"] == "external"
    assert joins(result) == {"server-1": "alone", "server-2": "alone"}
    assert [one["takes_token"] for one in result["nodes"].values()] == [False, True]


@pytest.mark.parametrize(
    ("asked", "servers", "present", "expected"),
    [
        ("auto", 1, "", "sqlite"),
        ("auto", 3, "", "etcd"),
        ("auto", 1, "etcd", "etcd"),
        ("etcd", 1, "", "etcd"),
        ("sqlite", 1, "sqlite", "sqlite"),
    ],
)
def test_datastores(asked: str, servers: int, present: str, expected: str) -> None:
    made = [node("server", n, inputs={"datastore": asked}) for n in range(1, servers + 1)]
    if present:
        made[0] = member("server", 1, datastore=present)
    assert plan(cluster(*made))["datastore"] == expected


def test_a_run_that_is_limited_to_an_agent() -> None:
    nodes = cluster(member("server", 1), node("agent", 9))
    result = plan(nodes, run=["agent-9"])
    assert joins(result)["agent-9"] == FIRST
    assert result["problems"] == []


def test_no_server_at_all() -> None:
    result = plan(cluster(node("agent", 9)), servers=["server-1"])
    assert result["problems"] == ["k3s_servers: is empty, or none of its hosts is reached; name a server"]
    assert result["nodes"]["agent-9"]["name"] == "agent-9"


def test_what_is_to_be_done() -> None:
    stale = member("server", 1)
    stale["k3s"]["units"]["k3s"]["stale"] = ["config.yaml"]
    planned = plan(cluster(stale, node("agent", 9)))["nodes"]
    assert (planned["server-1"]["outdated"], planned["server-1"]["active"], planned["server-1"]["installs"]) == (
        ["config.yaml"],
        True,
        False,
    )
    assert (planned["agent-9"]["active"], planned["agent-9"]["installs"]) == (False, True)


def test_names_reach_a_machine_only_if_they_are_addresses() -> None:
    named = node("server", 1, host="homeserver")
    assert plan(cluster(node("server", 1)) | {"server-1": named})["kubeconfig_url"] == FIRST
    natted = node("server", 1, host="198.51.100.7")
    result = plan({"server-1": natted})
    assert result["kubeconfig_url"] == "https://198.51.100.7:6443"
    assert result["nodes"]["server-1"]["config"]["tls-san"] == ["198.51.100.7"]


def test_addresses_of_ipv6_have_brackets() -> None:
    nodes = cluster(node("server", 1, inputs={"node_ip": "fd00::1"}), node("agent", 9))
    assert joins(plan(nodes))["agent-9"] == "https://[fd00::1]:6443"


def test_a_proxy_is_not_asked_for_the_way_to_the_cluster() -> None:
    inputs = {"https_proxy": "http://proxy:3128"}
    nodes = cluster(node("server", 1, inputs=inputs), node("agent", 9, inputs=inputs, host="198.51.100.9"))
    planned = plan(nodes)["nodes"]
    direct = {host: one["environment"]["NO_PROXY"].split(",") for host, one in planned.items()}
    assert {"192.0.2.0/24", "192.0.2.1"} <= set(direct["server-1"])
    assert {"192.0.2.0/24", "192.0.2.9", "192.0.2.1"} <= set(direct["agent-9"])
