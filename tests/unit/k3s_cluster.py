"""Nodes as filter k3s_plan takes them, of which tests change what they are about."""

from __future__ import annotations

import copy
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_plan import build_plan

Item = dict[str, Any]

VERSION = "v1.34.3+k3s1"

INPUTS: Item = {
    "agent_config": {},
    "api_address": "",
    "checksum": "",
    "cluster_cidr": ["10.42.0.0/16"],
    "data_path": "/var/lib/rancher/k3s",
    "datastore": "auto",
    "disable": ["traefik", "servicelb"],
    "http_proxy": "",
    "https_proxy": "",
    "network": "cilium",
    "no_proxy": [],
    "node_external_ip": "",
    "node_ip": "",
    "node_labels": {},
    "node_name": "",
    "node_taints": [],
    "registries_given": False,
    "server_config": {},
    "service_cidr": ["10.43.0.0/16"],
    "tls_san": [],
    "token_given": False,
}

MACHINE: Item = {
    "clock_ahead": 0.4,
    "memory": 4000,
    "disk_free": 50_000,
    "systemd": True,
    "cgroup": {"version": 2, "controllers": ["cpuset", "cpu", "io", "memory", "pids"]},
    "modules": {"overlay": "present", "br_netfilter": "present", "vxlan": "unknown"},
    "sysctls": {"fs.inotify.max_user_instances": "1024", "fs.inotify.max_user_watches": "65536"},
    "networks": [{"interface": "eth0", "network": "192.0.2.0/24"}],
    "cni": [],
    "firewalls": [],
    "selinux_without_policy": False,
}

BARE: Item = {
    "version": "",
    "sha256": "",
    "units": {},
    "datastore": "",
    "authority": "",
    "config": {"server": "", "cluster-init": False, "cluster-cidr": "", "service-cidr": ""},
    "configuration": "",
    "registries": "",
    "token": "",
    "tokens": {},
}


def node(kind: str, last: int, **changed: Any) -> Item:
    """A bare machine at 192.0.2.<last>. ``changed`` replaces keys of inputs, facts, machine, k3s, and others."""
    name = f"{kind}-{last}"
    place = {"address": f"192.0.2.{last}", "network": "192.0.2.0/24"}
    made: Item = {
        "kind": kind,
        "host": f"192.0.2.{last}",
        "inputs": INPUTS,
        "facts": {"architecture": "x86_64", "kernel": "6.1.0-18-amd64", "nodename": name, **place},
        "machine": MACHINE,
        "ports": {},
        "k3s": BARE,
        "version": VERSION,
        "binary": {},
    }
    made = copy.deepcopy(made)
    for key, value in changed.items():
        made[key] = {**made[key], **value} if isinstance(value, dict) and key != "ports" else value
    return made


def member(
    kind: str, last: int, *, datastore: str = "etcd", server: str = "", active: str = "active", **k3s: Any
) -> Item:
    """A machine that is part of a cluster."""
    unit = {"active": active, "enabled": True, "started": 1.0, "whose": "ours", "stale": []}
    present = {
        "version": VERSION,
        "units": {"k3s" if kind == "server" else "k3s-agent": unit},
        "datastore": datastore if kind == "server" else "",
        "authority": "a1",
        "config": {**BARE["config"], "server": server, "cluster-init": kind == "server" and not server},
        "configuration": "ours",
    }
    return node(kind, last, k3s={**present, **k3s})


def cluster(*nodes: Item) -> dict[str, Item]:
    return {f"{one['kind']}-{one['host'].rpartition('.')[2]}": one for one in nodes}


def plan(nodes: dict[str, Item], servers: list[str] | None = None, **wanted: Any) -> Item:
    known = [host for host, one in nodes.items() if one["kind"] == "server"]
    given = {"run": list(nodes), "strays": [], "both": [], "max_clock_skew": 30, **wanted}
    return build_plan(nodes, known if servers is None else servers, given)
