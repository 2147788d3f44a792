#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_wait
short_description: Wait for parts of a cluster, one after the other, and show how far they are
version_added: 0.1.0
description:
  - Waits for steps in their order. A step is over when its workloads are rolled out, or when its other objects have a
    condition, such as nodes that are C(Ready).
  - What is new is shown while it waits.
  - When a rollout fails or time is up, the message says why. For pods it tells the state of their containers, events
    and the last lines of their logs.
  - Changes nothing.
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    description: Looks once and does not wait.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  async:
    description: Progress is not shown then.
    support: full
options:
  steps:
    description: What is waited for.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description:
          - Kind of the objects. Deployments, StatefulSets, DaemonSets and Jobs are waited for until they are rolled
            out, others until they have O(steps[].condition).
        type: str
        required: true
      api_version:
        description: Their API version; known for workloads, pods, nodes and CustomResourceDefinitions.
        type: str
      namespace:
        description: Their namespace.
        type: str
      names:
        description: Their names, of which all must be there. Without it, all of O(steps[].selector).
        type: list
        elements: str
        default: []
      selector:
        description: A label selector, such as C(k8s-app=kube-dns).
        type: str
      at_least:
        description: How many there must be.
        type: int
        default: 1
      condition:
        description: The condition; C(Ready), and C(Established) for CustomResourceDefinitions, if not given.
        type: str
  timeout:
    description: Seconds for all steps.
    type: int
    default: 300
  workers:
    description: Requests that are sent at the same time.
    type: int
    default: 8
  resume:
    description:
      - Not for playbooks. The action plugin, which shows progress while it waits, has the module return with RV(paused)
        when there is progress, and gives that back here.
    type: dict
seealso:
  - module: sidecar.mesh.apply
"""

EXAMPLES = r"""
- name: Wait for the cluster's DNS, and for three nodes
  sidecar.mesh.cluster_wait:
    timeout: 120
    steps:
      - {kind: Node, at_least: 3}
      - {kind: Deployment, namespace: kube-system, selector: k8s-app=kube-dns}
"""

RETURN = r"""
lines:
  description: How each step ended.
  type: list
  elements: str
  returned: success
  sample: ["Nodes: 3 of 3 Ready", "Deployment kube-system/coredns: 1 of 1 replica updated, 1 available"]
finished:
  description: Whether all steps are over; in check mode, whether they would be without a wait.
  type: bool
  returned: success
paused:
  description: For the action plugin, which removes it.
  type: dict
  returned: with O(resume), while the wait goes on
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import kube, kube_steps

PAUSE = 10.0

STEP: dict[str, Any] = {
    "kind": {"type": "str", "required": True},
    "api_version": {"type": "str"},
    "namespace": {"type": "str"},
    "names": {"type": "list", "elements": "str", "default": []},
    "selector": {"type": "str"},
    "at_least": {"type": "int", "default": 1},
    "condition": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(
        {
            **kube.AUTH_OPTIONS,
            "steps": {"type": "list", "elements": "dict", "required": True, "options": STEP},
            "timeout": {"type": "int", "default": 300},
            "workers": {"type": "int", "default": kube.WORKERS},
            "resume": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    if not kube.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    params = module.params
    shown = {"invocation": {"module_args": kube.hidden(params)}}
    state = params["resume"] or kube_steps.begin(params["timeout"])
    # Who is called for the first time looks, tells, and waits no longer.
    pause = None if params["resume"] is None else (PAUSE if params["resume"] else 0.0)
    if module.check_mode:
        pause = 0.0
    try:
        cluster = kube.connect(params, params["workers"])
        finished = kube_steps.wait(cluster, params["workers"], params["steps"], state, pause)
        while module.check_mode and not finished and not state["lines"]:
            finished = kube_steps.wait(cluster, params["workers"], params["steps"], state, pause)
    except kube.ConnectError as exc:
        module.fail_json(msg=str(exc), **shown)
    except kube_steps.StepError as exc:
        module.fail_json(msg=str(exc), lines=state["done"], **shown)
    except kube.ApiError as exc:
        module.fail_json(msg=kube.why(exc), lines=state["done"], **shown)
    paused = {} if finished or module.check_mode else {"paused": state}
    module.exit_json(changed=False, finished=finished, lines=[*state["done"], *state["lines"]], **paused, **shown)


if __name__ == "__main__":
    main()
