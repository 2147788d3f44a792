#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_wait
short_description: Wait until a cluster's nodes are registered, voters of etcd, or Ready
version_added: 0.1.0
description:
  - Shows each node's state, and each change of it, while it waits.
  - Does not fail when time is up, but returns who is late in C(waiting), so that a play can ask those nodes for their
    reason.
author:
  - sidecar.mesh contributors (@sidecar-mesh)
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: N/A
    description: Nothing is changed.
options:
  nodes:
    description: Names of the nodes.
    type: list
    elements: str
    required: true
  until:
    description: What they are to be.
    type: str
    choices: [registered, voter, ready]
    default: ready
  timeout:
    description: Seconds to wait for all of them.
    type: int
    default: 300
  seen:
    description: What an earlier run of this module returned, from which this one goes on. The action plugin sets it.
    type: dict
    default: {}
seealso:
  - module: kubernetes.core.k8s_info
"""

EXAMPLES = r"""
- name: Wait until both nodes are Ready
  sidecar.mesh.node_wait:
    context: homelab
    nodes: [server-1, agent-1]
  register: nodes
  failed_when: nodes.waiting | length > 0
"""

RETURN = r"""
waiting:
  description: Nodes that are not yet what they are to be.
  returned: always
  type: list
  elements: str
states:
  description: What each node says, by its name.
  returned: always
  type: dict
  sample: {"agent-1": "is not registered yet"}
nodes:
  description: Labels and taints of each node that is registered, by its name.
  returned: always
  type: dict
  sample: {"server-1": {"labels": {"kubernetes.io/os": "linux"}, "taints": []}}
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import kube, node_states

INTERVAL = 1.0
TIMEOUT = 10.0


def look(cluster: kube.Cluster, names: list[str], goal: str) -> tuple[dict[str, node_states.State], dict[str, Any]]:
    try:
        objects = list(kube.call(cluster, "GET", "/api/v1/nodes", timeout=TIMEOUT, retries=0).get("items") or [])
    except kube.ApiError as exc:
        return dict.fromkeys(names, node_states.State(False, f"cannot be asked for: {exc.message}")), {}
    return node_states.states(objects, names, goal), node_states.marks(objects, names)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kube.AUTH_OPTIONS,
            "nodes": {"type": "list", "elements": "str", "required": True},
            "until": {"type": "str", "choices": list(node_states.GOALS), "default": "ready"},
            "timeout": {"type": "int", "default": 300},
            "seen": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    if not kube.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    given = module.params
    seen = given["seen"]
    end = float(seen.get("end") or time.time() + given["timeout"])
    try:
        cluster = kube.connect(given, 1)
    except kube.ConnectError as exc:
        module.fail_json(msg=str(exc))
    while True:
        states, nodes = look(cluster, given["nodes"], given["until"])
        texts = {name: state.text for name, state in states.items()}
        waiting = [name for name, state in states.items() if not state.done]
        over = not waiting or time.time() >= end
        if over or texts != seen.get("states"):
            break
        time.sleep(INTERVAL)
    paused = None if over else {"end": end, "states": texts}
    module.exit_json(changed=False, waiting=waiting, states=texts, nodes=nodes, paused=paused)


if __name__ == "__main__":
    main()
