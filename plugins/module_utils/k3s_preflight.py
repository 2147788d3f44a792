# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What keeps nodes from becoming a cluster: every problem of every node, a line each, with the remedy.

Pure functions over what was read; the shapes of ``nodes``, ``plan`` and ``wanted`` are told in k3s_plan. Lines are
``host: subject: what is wrong; remedy``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_config, k3s_preflight_cluster, k3s_preflight_node
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_requirements as required
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_nodes import a, is_active

Item = dict[str, Any]


def find_problems(nodes: dict[str, Item], plan: Item, wanted: Item) -> Iterator[str]:
    """Everything that has to be put right before anything is changed."""
    yield from k3s_preflight_cluster.check(nodes, plan, wanted)
    for host, node in _of_this_run(nodes, wanted):
        found = [
            *k3s_config.refused(node["kind"], node["inputs"]),
            *k3s_preflight_node.check(node, plan["nodes"][host], plan["datastore"], wanted["max_clock_skew"]),
            *k3s_preflight_cluster.check_membership(host, nodes, plan),
        ]
        yield from (f"{host}: {line}" for line in found)


def find_warnings(nodes: dict[str, Item], plan: Item, wanted: Item) -> Iterator[str]:
    """What a person should know, and may have meant."""
    count = len(plan["servers"])
    if plan["datastore"] == "etcd" and count > 1 and count % 2 == 0:
        yield (
            f"k3s_servers: {count} servers: etcd needs more than half of them, so {count} bear the loss of no more than"
            f" {count - 1} do, and there is one more to lose; add one, or make one an agent"
        )
    for host, node in _of_this_run(nodes, wanted):
        yield from (f"{host}: {line}" for line in _warnings_of(node))


def _warnings_of(node: Item) -> Iterator[str]:
    kind, inputs, machine = node["kind"], node["inputs"], node["machine"]
    if machine["firewalls"] and not is_active(node):
        networks = " and ".join(k3s_config.comma(inputs[name]) for name in ("cluster_cidr", "service_cidr"))
        ports = f"{required.FIREWALL[kind]}; {required.FIREWALL[inputs['network']]}"
        yield f"{' and '.join(machine['firewalls'])} is active: allow {ports}; and all from {networks}"
    if machine["selinux_without_policy"]:
        yield "SELinux is enforcing without the policy of k3s; install the package k3s-selinux"
    if required.MEMORY[kind] <= machine["memory"] < required.COMFORTABLE_MEMORY[kind]:
        yield f"{machine['memory']} MB of memory are few for {a(kind)}; k3s asks for 2 GB on servers, 512 MB on agents"


def _of_this_run(nodes: dict[str, Item], wanted: Item) -> list[tuple[str, Item]]:
    return [(host, node) for host, node in nodes.items() if host in wanted["run"]]
