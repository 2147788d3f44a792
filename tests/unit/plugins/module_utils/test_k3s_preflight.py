"""Every problem of every node, with its remedy."""

from __future__ import annotations

from typing import Any

import pytest
from unit.k3s_cluster import Item, cluster, member, node, plan

SUM, OTHER_SUM = "a" * 64, "b" * 64


NO_GROUP = (
    "is in neither group of k3s; put it into one (k3s_server_group, k3s_agent_group), or leave it out of the play"
)


def server(**changed: Any) -> dict[str, Item]:
    return cluster(node("server", 1, **changed))


def test_bare_machines_are_good() -> None:
    result = plan(cluster(node("server", 1), node("server", 2), node("server", 3), node("agent", 9)))
    assert (result["problems"], result["warnings"]) == ([], [])


def test_a_cluster_that_runs_is_good() -> None:
    url = "https://192.0.2.1:6443"
    result = plan(cluster(member("server", 1), member("server", 2, server=url), member("agent", 9, server=url)))
    assert result["problems"] == []


MACHINES: list[tuple[str, dict[str, Any], str]] = [
    (
        "architecture",
        {"facts": {"architecture": "ppc64le"}},
        "architecture: ppc64le: k3s is released for x86_64, aarch64; use another machine",
    ),
    (
        "architecture without Cilium",
        {"facts": {"architecture": "armv7l"}},
        "architecture: armv7l: Cilium is released for x86_64, aarch64; use another machine",
    ),
    (
        "systemd",
        {"machine": {"systemd": False}},
        "systemd: does not run; k3s is one of its units here: use a system that",
    ),
    (
        "name",
        {"facts": {"nodename": "my_server"}},
        "node name 'my_server': a node cannot be called so; set k3s_node_name, or another hostname (a-z, 0-9 and -)",
    ),
    (
        "address",
        {"facts": {"address": "", "network": ""}},
        "address: the machine has no default route, which would tell its address; set k3s_node_ip",
    ),
    ("memory", {"machine": {"memory": 450}}, "memory: 450 MB: a server needs 900 at least; use a larger machine"),
    (
        "disk",
        {"machine": {"disk_free": 100}},
        "k3s_data_path: /var/lib/rancher/k3s: only 100 MB are free, and 1500 are needed; make room, or choose another",
    ),
    (
        "cgroups of a Raspberry Pi",
        {"machine": {"cgroup": {"version": 2, "controllers": ["cpuset", "cpu", "io", "pids"]}}},
        "control groups: no controller memory; add cgroup_enable=cpuset cgroup_memory=1 cgroup_enable=memory to the",
    ),
    (
        "cgroups of version 1",
        {"machine": {"cgroup": {"version": 1, "controllers": ["cpuset", "cpu", "memory"]}}, "version": "v1.35.1+k3s1"},
        "control groups: version 1: the kubelet of v1.35.1+k3s1 wants version 2; start the machine with",
    ),
    (
        "kernel",
        {"facts": {"kernel": "4.19.0-27-amd64"}},
        "kernel: 4.19.0-27-amd64: Cilium needs 5.10 at least; install a newer one, or set k3s_network: flannel",
    ),
    (
        "module",
        {"machine": {"modules": {"overlay": "present", "vxlan": "absent"}}},
        "kernel module vxlan: the kernel does not have it; install the package with the rest of its modules",
    ),
    (
        "sysctl",
        {"machine": {"sysctls": {"fs.inotify.max_user_instances": "64"}}},
        "fs.inotify.max_user_instances: 64: is less than 128; set it in /etc/sysctl.d (now: sysctl -w",
    ),
    (
        "protected kernel",
        {
            "inputs": {"server_config": {"protect-kernel-defaults": True}},
            "machine": {"sysctls": {"kernel.panic": "0", "kernel.panic_on_oops": "1"}},
        },
        "kernel.panic: 0: protect-kernel-defaults wants 10; set it in /etc/sysctl.d",
    ),
    (
        "clock ahead",
        {"machine": {"clock_ahead": 95.3}},
        "clock: is 95 s ahead of that of the machine Ansible runs on, and 30 s are allowed: certificates would not",
    ),
    (
        "clock behind",
        {"machine": {"clock_ahead": -3600.0}},
        "clock: is 3600 s behind that of the machine Ansible runs on",
    ),
    (
        "port",
        {"ports": {"6443": "pid 812 (nginx: master process)", "8443": "pid 1 (x)"}},
        "port 6443: is held by pid 812 (nginx: master process), and k3s needs it; stop that process",
    ),
    (
        "binary of another architecture",
        {"binary": {"path": "/tmp/k3s", "architecture": "aarch64", "sha256": SUM}},
        "k3s_binary: /tmp/k3s: was built for aarch64, and the node is x86_64; name another file for this host",
    ),
    (
        "binary that is not there",
        {"binary": {"path": "/tmp/k3s", "architecture": "", "sha256": ""}},
        "k3s_binary: /tmp/k3s: is no file of the machine Ansible runs on, or cannot be read there",
    ),
    (
        "no binary",
        {"binary": {"path": "/tmp/k3s", "architecture": "", "sha256": SUM}},
        "k3s_binary: /tmp/k3s: is no program, and the node is x86_64; name another file for this host",
    ),
    (
        "sum of a local binary",
        {"binary": {"path": "/tmp/k3s", "architecture": "x86_64", "sha256": SUM}, "inputs": {"checksum": OTHER_SUM}},
        f"k3s_checksum: {OTHER_SUM}: /tmp/k3s has {SUM}; correct one of them",
    ),
    (
        "configuration of others",
        {"k3s": {"configuration": "others"}},
        "/etc/rancher/k3s/config.yaml: was not written by this role; move what it says to k3s_server_config, and",
    ),
    (
        "registries of others",
        {"k3s": {"registries": "others"}, "inputs": {"registries_given": True}},
        "/etc/rancher/k3s/registries.yaml: was not written by this role; move what it says to k3s_registries, and",
    ),
    (
        "unit of others",
        {"k3s": {"units": {"k3s": {"active": "inactive", "whose": "others", "stale": []}}}},
        "/etc/systemd/system/k3s.service: was not written by this role; have whatever installed k3s remove it first",
    ),
    (
        "network of others",
        {"machine": {"cni": ["10-calico.conflist", "05-cilium.conflist"]}},
        "/etc/cni/net.d: 10-calico.conflist: pods would get this network until Cilium is there; remove it, or set",
    ),
    (
        "key that breaks the order",
        {"inputs": {"server_config": {"flannel-backend": "vxlan"}}},
        "k3s_server_config.flannel-backend: 'vxlan': k3s_network: cilium needs none here",
    ),
]


@pytest.mark.parametrize(("changed", "problem"), [case[1:] for case in MACHINES], ids=[case[0] for case in MACHINES])
def test_a_machine(changed: dict[str, Any], problem: str) -> None:
    (found,) = plan(server(**changed))["problems"]
    assert found.startswith(f"server-1: {problem}")


def test_what_is_no_problem() -> None:
    """Each is one in the table above, for another node or another network."""
    v1 = {"version": 1, "controllers": ["cpuset", "cpu", "memory"]}
    told = {"server_config": {"kubelet-arg": ["fail-cgroupv1=false"]}}
    good = [
        server(inputs={"network": "flannel"}, facts={"kernel": "4.19.0", "architecture": "armv7l"}),
        server(machine={"cgroup": v1}),
        server(machine={"cgroup": v1}, version="v1.35.1+k3s1", inputs=told),
        server(machine={"modules": {"overlay": "unknown", "vxlan": "unknown", "br_netfilter": "absent"}}),
        server(machine={"cni": ["10-calico.conflist"]}, inputs={"network": "none"}),
        server(ports={"2379": "pid 9 (etcd)"}),
        cluster(node("server", 1), node("agent", 9, ports={"6443": "pid 9 (haproxy)"})),
        server(machine={"clock_ahead": 29.0}),
        server(binary={"path": "/tmp/k3s", "architecture": "any", "sha256": SUM}),
    ]
    assert [plan(nodes)["problems"] for nodes in good] == [[]] * len(good)


def test_every_problem_of_every_node_at_once() -> None:
    bad = {"machine": {"systemd": False, "clock_ahead": 99.0}, "ports": {"10250": "pid 7 (kubelet)"}}
    problems = plan(cluster(node("server", 1, **bad), node("agent", 9, **bad)))["problems"]
    assert len(problems) == 6
    assert {line.partition(":")[0] for line in problems} == {"server-1", "agent-9"}


TOGETHER: list[tuple[str, dict[str, Item], str]] = [
    (
        "the same name twice",
        cluster(node("server", 1, facts={"nodename": "debian"}), node("agent", 9, facts={"nodename": "Debian"})),
        "server-1, agent-9: node name 'debian': they all have it; give them names of their own by k3s_node_name, or",
    ),
    (
        "the same address twice",
        cluster(*(node(kind, n, facts={"address": "10.0.2.15"}) for kind, n in (("server", 1), ("agent", 9)))),
        "server-1, agent-9: address '10.0.2.15': they all have it; set k3s_node_ip to the address by which the other",
    ),
    (
        "SQLite for several",
        cluster(*(node("server", n, inputs={"datastore": "sqlite"}) for n in (1, 2, 3))),
        "k3s_datastore: sqlite: is for a single server, and there are 3; set etcd, or leave it out",
    ),
    (
        "servers that differ",
        cluster(
            node("server", 1),
            node("server", 2),
            node("server", 3, inputs={"server_config": {"secrets-encryption": True}}),
        ),
        "k3s_server_config.secrets-encryption: None on server-1, None on server-2, True on server-3: must be the",
    ),
    (
        "pods' network is that of the nodes",
        server(inputs={"cluster_cidr": ["192.0.0.0/16"]}),
        "k3s_cluster_cidr: 192.0.0.0/16: overlaps with the network 192.0.2.0/24 (interface eth0) of server-1, which",
    ),
    (
        "pods' network is that of Services",
        server(inputs={"service_cidr": ["10.42.128.0/17"]}),
        "k3s_service_cidr: 10.42.128.0/17: overlaps with k3s_cluster_cidr 10.42.0.0/16; choose another",
    ),
    (
        "no network",
        server(inputs={"cluster_cidr": "10.42.0.1/16"}),
        "k3s_cluster_cidr: '10.42.0.1/16': is no network (10.42.0.1/16 has host bits set); give one such as",
    ),
    (
        "another cluster's node",
        cluster(member("server", 1), member("agent", 9, authority="b2")),
        "agent-9: cluster: the node is of another cluster than server-1 is, and would not believe its certificates;",
    ),
    (
        "a node of a cluster that is gone",
        cluster(node("server", 1), member("agent", 9)),
        "agent-9: cluster: the node is of a cluster of before, and would not believe its certificates; reset it first",
    ),
    (
        "networks that were others when the cluster began",
        cluster(member("server", 1, config={"server": "", "cluster-cidr": "10.0.0.0/16", "service-cidr": ""})),
        "server-1: k3s_cluster_cidr: 10.42.0.0/16: the cluster was made with 10.0.0.0/16, which cannot",
    ),
    (
        "another token",
        cluster(member("server", 1, token="other")),
        "server-1: k3s_token: is not the token of the cluster that this server runs; remove the variable, or set",
    ),
    (
        "a server that is to be an agent",
        cluster(member("server", 1), {**member("server", 9), "kind": "agent"}),
        "agent-9: cluster: the node is a server already, and its group says agent; reset it first",
    ),
    (
        "another version",
        cluster(member("server", 1), {**member("agent", 9), "version": "v1.35.1+k3s1"}),
        "agent-9: k3s_version: v1.35.1+k3s1: v1.34.3+k3s1 is installed; this role does not upgrade yet, and",
    ),
    (
        "another binary",
        cluster(
            {
                **member("server", 1, sha256=OTHER_SUM),
                "binary": {"path": "/tmp/k3s", "architecture": "x86_64", "sha256": SUM},
            }
        ),
        "server-1: k3s_binary: /tmp/k3s: is not that: v1.34.3+k3s1 is installed; this role does not upgrade yet",
    ),
]


@pytest.mark.parametrize(("nodes", "problem"), [case[1:] for case in TOGETHER], ids=[case[0] for case in TOGETHER])
def test_nodes_together(nodes: dict[str, Item], problem: str) -> None:
    (found,) = plan(nodes)["problems"]
    assert found.startswith(problem)


def test_a_version_that_was_installed_and_never_used_may_be_replaced() -> None:
    unused = server(k3s={"version": "v1.33.1+k3s1"})
    result = plan(unused)
    assert (result["problems"], result["nodes"]["server-1"]["installs"]) == ([], True)


def test_hosts_of_no_group_and_of_both() -> None:
    assert plan(server(), strays=["printer"], both=["server-1"])["problems"] == [
        f"printer: {NO_GROUP}",
        "server-1: is in the groups of servers and of agents; servers run pods, too: take it out of the agents",
    ]


def test_routes_of_a_node_of_the_cluster_may_be_to_its_pods() -> None:
    one = member("server", 1)
    one["machine"]["networks"] = [{"interface": "br-pods", "network": "10.42.1.0/24"}]
    assert plan(cluster(one))["problems"] == []


def test_links_of_the_cluster_itself_are_no_networks_of_the_node() -> None:
    own = [{"interface": name, "network": "10.42.1.0/24"} for name in ("cilium_host", "cni0", "flannel.1")]
    assert plan(server(machine={"networks": own}))["problems"] == []


@pytest.mark.parametrize(
    ("nodes", "warning"),
    [
        (
            cluster(node("server", 1), node("server", 2)),
            (
                "k3s_servers: 2 servers: etcd needs more than half of them, so 2 bear the loss of no more than 1 "
                "do, and there is one more to lose; add one, or make one an agent"
            ),
        ),
        (
            server(machine={"firewalls": ["ufw"]}),
            (
                "server-1: ufw is active: allow TCP 6443, 10250; with several servers TCP 2379-2380 among them; UDP "
                "8472 (VXLAN), UDP 51871 (WireGuard), TCP 4240, 4244; and all from 10.42.0.0/16 and 10.43.0.0/16"
            ),
        ),
        (
            server(machine={"selinux_without_policy": True}),
            "server-1: SELinux is enforcing without the policy of k3s; install the package k3s-selinux",
        ),
        (
            server(machine={"memory": 1000}),
            "server-1: 1000 MB of memory are few for a server; k3s asks for 2 GB on servers, 512 MB on agents",
        ),
    ],
)
def test_warnings(nodes: dict[str, Item], warning: str) -> None:
    result = plan(nodes)
    assert (result["problems"], result["warnings"]) == ([], [warning])
