#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: apply
short_description: Apply many Kubernetes objects, all or nothing, with a diff of each, pruning and a wait
version_added: 0.1.0
description:
  - Brings the objects of a list into a cluster by server-side apply.
  - First the API server tries everything without keeping it. If it refuses anything, the module fails with all that is
    wrong, and nothing was changed.
  - Then what differs from the live objects is applied, many objects at once, in an order in which each finds what it
    needs. What does not differ is left alone.
  - Objects that are applied as a set can be pruned. Those of the set that are no longer in the list are removed, and
    never any others.
  - Values of Secrets are never shown, neither in diffs nor in errors.
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    description:
      - The API server tries everything, as always, and keeps nothing. Objects whose namespace or kind the list itself
        brings, and bindings to roles that it brings, can only be tried when these exist, and are shown as they are in
        the list.
    support: full
  diff_mode:
    description:
      - An entry for each object that changes, from the live object to what the API server makes of it, without what
        only the API server writes, and with hashes in place of a Secret's values.
    support: full
  async:
    description: Progress of rollouts is not shown then.
    support: full
options:
  definition:
    description:
      - The objects, each with C(apiVersion), C(kind) and C(metadata.name). Objects of kind C(List) are taken apart.
      - Namespaces and CustomResourceDefinitions are applied before what needs them.
    type: list
    elements: dict
    required: true
  namespace:
    description: Namespace of objects that have none, and of the parent of O(apply_set).
    type: str
  create_namespace:
    description:
      - Whether O(namespace) is made if it does not exist, with the label C(app.kubernetes.io/managed-by=sidecar.mesh).
    type: bool
    default: false
  apply_set:
    description:
      - Name of the set the objects belong to. They get the label C(applyset.kubernetes.io/part-of), and a ConfigMap of
        this name in O(namespace) records their kinds and namespaces.
      - Further calls with the same name add to the set.
    type: str
  prune:
    description:
      - Whether objects that have the label of O(apply_set) and are not in O(definition) are removed, at the end, when
        everything is applied and, with O(wait), rolled out.
      - Only kinds and namespaces that the set's ConfigMap records are looked through. Namespaces and
        CustomResourceDefinitions are never removed, as all that is in them would go as well.
      - With an empty O(definition) the whole set is removed, and its ConfigMap.
    type: bool
    default: false
  previous_namespaces:
    description:
      - Namespaces that were O(namespace) of the same O(apply_set) before. What is left of the set that was recorded
        there is pruned, too.
    type: list
    elements: str
    default: []
  only_missing:
    description: Whether only objects that do not exist are applied, and waited for. All are tried nevertheless.
    type: bool
    default: false
  wait:
    description:
      - Whether to wait until Deployments, StatefulSets and DaemonSets of the list run in their newest version, and Jobs
        are complete.
      - When one fails, the message says what is wrong with its pods, with events and the last lines of their logs.
        Pods that can never start are not waited for until the end.
    type: bool
    default: false
  wait_timeout:
    description: Seconds to wait for all of them.
    type: int
    default: 300
  force_conflicts:
    description:
      - Whether fields that another field manager has set to another value are taken over. Otherwise they are refused.
    type: bool
    default: false
  field_manager:
    description: Name under which the API server remembers who has set a field.
    type: str
    default: sidecar.mesh
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
  - module: kubernetes.core.k8s
  - name: Server-side apply
    description: Who owns which field, and what a conflict is.
    link: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

EXAMPLES = r"""
- name: Apply a file of manifests, and wait until everything runs
  sidecar.mesh.apply:
    namespace: shop
    definition: "{{ lookup('ansible.builtin.template', 'shop.yaml') | from_yaml_all | list }}"
    wait: true

- name: Have a set of objects in the cluster, and nothing that was in the set before
  sidecar.mesh.apply:
    kubeconfig: ~/.kube/shop
    namespace: shop
    apply_set: settings
    prune: true
    definition:
      - apiVersion: v1
        kind: ConfigMap
        metadata:
          name: colors
        data:
          background: blue

- name: Remove that set
  sidecar.mesh.apply:
    kubeconfig: ~/.kube/shop
    namespace: shop
    apply_set: settings
    prune: true
    definition: []

- name: Say once where the cluster is
  hosts: localhost
  module_defaults:
    group/sidecar.mesh.kubernetes:
      kubeconfig: ~/.kube/shop
      context: staging
  tasks:
    - name: Take over what was made by hand
      sidecar.mesh.apply:
        definition: "{{ lookup('ansible.builtin.file', 'service.yaml') | from_yaml_all | list }}"
        namespace: shop
        force_conflicts: true
"""

RETURN = r"""
objects:
  description:
    - The objects in the order of O(definition), then those that were pruned, or would be in check mode.
    - The ConfigMap that stands for O(apply_set) comes first.
  type: list
  elements: dict
  returned: when everything was tried
  contains:
    kind:
      description: Kind of the object.
      type: str
      sample: Deployment
    namespace:
      description: Its namespace, empty where it has none.
      type: str
      sample: shop
    name:
      description: Its name.
      type: str
      sample: service-a
    result:
      description: V(created), V(changed), V(unchanged), V(pruned), or, with O(only_missing), V(left) as it differs.
      type: str
      sample: changed
settled:
  description:
    - Whether, before this task began, the cluster had everything as the list has it, its workloads ran in their newest
      version, and there was nothing else of O(apply_set). Then nothing is left to do, not even what O(only_missing)
      leaves.
  type: bool
  returned: when everything was tried
leavers:
  description:
    - Objects of O(apply_set) that are not in O(definition), which O(prune) removes, each with kind, namespace and name.
    - V(null) if they may not be listed.
  type: list
  elements: dict
  returned: when everything was tried
  sample:
    - kind: ConfigMap
      namespace: shop
      name: colors
rollouts:
  description: Workloads that were waited for.
  type: list
  elements: dict
  returned: with O(wait), but not in check mode
  contains:
    kind:
      description: Kind of the workload.
      type: str
      sample: Deployment
    namespace:
      description: Its namespace.
      type: str
      sample: shop
    name:
      description: Its name.
      type: str
      sample: service-a
    wanted:
      description: Replicas it is to have.
      type: int
      sample: 3
    updated:
      description: Replicas of its newest version.
      type: int
      sample: 3
    available:
      description: Replicas that are available.
      type: int
      sample: 3
    done:
      description: Whether it is rolled out.
      type: bool
      sample: true
    text:
      description: The same in words.
      type: str
      sample: 3 of 3 replicas updated, 3 available
problems:
  description: What the API server refused, a line for each problem.
  type: list
  elements: str
  returned: when something was refused before anything was changed
  sample:
    - "ConfigMap shop/colors: kubectl-edit has set .data.background, to another value; leave that out of definition, or
      take it over by force_conflicts: true"
paused:
  description: For the action plugin, which removes it.
  type: dict
  returned: with O(resume), while rollouts go on
"""

import time
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import kube, kube_apply, kube_plan, kube_wait
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import diff, group_kind, key
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_read import fetch
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_rollouts import ROLLED

PAUSE = 10.0

ARGUMENTS: dict[str, Any] = {
    **kube.AUTH_OPTIONS,
    "definition": {"type": "list", "elements": "dict", "required": True},
    "namespace": {"type": "str"},
    "apply_set": {"type": "str"},
    "prune": {"type": "bool", "default": False},
    "previous_namespaces": {"type": "list", "elements": "str", "default": []},
    "create_namespace": {"type": "bool", "default": False},
    "only_missing": {"type": "bool", "default": False},
    "wait": {"type": "bool", "default": False},
    "wait_timeout": {"type": "int", "default": 300},
    "force_conflicts": {"type": "bool", "default": False},
    "field_manager": {"type": "str", "default": "sidecar.mesh"},
    "workers": {"type": "int", "default": kube.WORKERS},
    "resume": {"type": "dict"},
}


def main() -> None:
    # Without no_log the host's log would get all definitions, Secrets included.
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, no_log=True, required_by={"apply_set": ("namespace",)})
    if not kube.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    params = module.params
    if params["prune"] and not params["apply_set"]:
        fail(module, "prune: true: what may be removed is told by the set's name; set apply_set", {})
    if params["workers"] < 1:
        fail(module, f"workers: {params['workers']}: at least 1 request has to be sent at a time", {})
    result: dict[str, Any] = {"changed": False}
    try:
        cluster = kube.connect(params, params["workers"])
        if params["resume"]:
            go_on(module, cluster, result, params["resume"])
        else:
            begin(module, cluster, result)
    except kube.ConnectError as exc:
        fail(module, str(exc), result)
    except kube_plan.PlanError as exc:
        count = len(exc.problems)
        head = f"Nothing was changed, because of {count} problem{'' if count == 1 else 's'}:"
        fail(module, "\n".join([head, *exc.problems]), {**result, "problems": exc.problems})
    except kube.ApiError as exc:
        done = "" if result["changed"] else "; nothing was changed"
        fail(module, f"{kube.why(exc)}{done}", result)
    module.exit_json(**result, invocation={"module_args": kube.hidden(params)})


def manner_of(module: AnsibleModule) -> kube_plan.Manner:
    params = module.params
    return kube_plan.Manner(
        params["field_manager"], params["force_conflicts"], params["only_missing"], params["workers"]
    )


def begin(module: AnsibleModule, cluster: kube.Cluster, result: dict[str, Any]) -> None:
    """Try, apply, wait and prune; with ``resume`` only until something has to be waited for."""
    params, manner = module.params, manner_of(module)
    definition = with_namespace(cluster, params)
    plan = kube_plan.make(cluster, manner, definition, params["namespace"], membership_of(params))
    tell_plan(module, plan, result, pruned=plan.prune if module.check_mode else [])
    result["settled"] = plan.settled
    result["leavers"] = None if plan.leavers is None else [named(obj) for obj in plan.leavers]
    if module.check_mode:
        return
    result["changed"] = False
    try:
        kube_apply.apply(cluster, manner, plan)
    except kube_apply.ApplyError as exc:
        result["changed"] = bool(exc.done)
        plan.items = [item for item in plan.items if item.outcome in UNTOUCHED or item in exc.done]
        tell_plan(module, plan, result, pruned=[])
        fail(module, str(exc), result)
    tell_plan(module, plan, result, pruned=[])
    state = {
        "workloads": [reference(item.wanted) for item in plan.items if is_waited_for(item, params)],
        "until": time.time() + params["wait_timeout"],
        "memory": {},
        "prune": [reference(obj) for obj in plan.prune],
        "parent": kube_apply.final_parent(plan),
    }
    go_on(module, cluster, result, state)


UNTOUCHED = (kube_plan.UNCHANGED, kube_plan.LEFT)


def go_on(module: AnsibleModule, cluster: kube.Cluster, result: dict[str, Any], state: dict[str, Any]) -> None:
    """What follows on the apply: the wait, of which a part may be over, and the pruning."""
    watch = kube_wait.Watch(cluster, module.params["workers"], state["until"], state["memory"])
    if module.params["wait"]:
        pause = None if module.params["resume"] is None else (PAUSE if module.params["resume"] else 0.0)
        try:
            view = kube_wait.wait(watch, state["workloads"], pause)
        except kube_wait.RolloutError as exc:
            result["rollouts"] = told_rollouts(exc.view)
            kept = "; nothing was pruned" if state["prune"] else ""
            fail(module, f"Not everything was rolled out{kept}:\n{exc}", result)
        result["rollouts"] = told_rollouts(view)
        if not view.finished:
            result["paused"] = state
            return
    prune(module, cluster, result, state)


def prune(module: AnsibleModule, cluster: kube.Cluster, result: dict[str, Any], state: dict[str, Any]) -> None:
    workers = module.params["workers"]
    found, errors = fetch(cluster, workers, state["prune"]) if module._diff else ({}, [])
    if errors:
        raise errors[0]
    try:
        removed = kube_apply.prune(cluster, workers, state["prune"])
        if state["parent"]:
            kube_plan.send(cluster, manner_of(module), state["parent"])
    except kube_apply.ApplyError as exc:
        fail(module, str(exc), result)
    result["changed"] = result["changed"] or bool(removed)
    result.setdefault("objects", []).extend(told(obj, kube_plan.PRUNED) for obj in removed)
    if module._diff:
        result.setdefault("diff", []).extend(diff(found[key(obj)], None) for obj in removed if key(obj) in found)


def membership_of(params: dict[str, Any]) -> kube_plan.Membership | None:
    if not params["apply_set"]:
        return None
    return kube_plan.Membership(
        params["apply_set"], params["namespace"], params["previous_namespaces"], params["prune"]
    )


def tell_plan(module: AnsibleModule, plan: kube_plan.Plan, result: dict[str, Any], pruned: list[kube.Object]) -> None:
    """Enter into the result what the plan has changed, or would."""
    changes = [item for item in plan.all_items if item.outcome not in UNTOUCHED]
    result["changed"] = bool(changes or pruned)
    result["objects"] = [told(item.wanted, item.outcome) for item in plan.all_items]
    result["objects"] += [told(obj, kube_plan.PRUNED) for obj in pruned]
    if module._diff:
        result["diff"] = [diff(item.live, item.after) for item in changes] + [diff(obj, None) for obj in pruned]


def told(obj: kube.Object, outcome: str) -> dict[str, str]:
    return {**named(obj), "result": outcome}


def named(obj: kube.Object) -> dict[str, str]:
    metadata = obj["metadata"]
    return {"kind": obj["kind"], "namespace": metadata.get("namespace") or "", "name": metadata["name"]}


def told_rollouts(view: kube_wait.View) -> list[dict[str, Any]]:
    return [
        {
            "kind": obj["kind"],
            "namespace": obj["metadata"]["namespace"],
            "name": obj["metadata"]["name"],
            "wanted": state.wanted,
            "updated": state.updated,
            "available": state.available,
            "done": state.done,
            "text": state.text,
        }
        for obj, state in zip(view.objects, view.states, strict=True)
    ]


def is_waited_for(item: kube_plan.Item, params: dict[str, Any]) -> bool:
    """A workload of the list; with only_missing a new one, as others may have to wait for what comes later."""
    left = params["only_missing"] and item.outcome in UNTOUCHED
    return params["wait"] and not left and group_kind(item.wanted) in ROLLED


def with_namespace(cluster: kube.Cluster, params: dict[str, Any]) -> list[Any]:
    """The objects, and the namespace they are for, if it is to be made. Who may not look for it has one."""
    namespace = params["namespace"]
    if not (params["create_namespace"] and namespace):
        return list(params["definition"])
    try:
        kube.call(cluster, "GET", f"/api/v1/namespaces/{namespace}")
    except kube.ApiError as exc:
        if exc.status == 404:
            metadata = {"name": namespace, "labels": {"app.kubernetes.io/managed-by": "sidecar.mesh"}}
            return [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, *params["definition"]]
        if exc.status != 403:
            raise
    return list(params["definition"])


def reference(obj: kube.Object) -> kube.Object:
    """Enough of an object to find it again."""
    kept = {name: obj["metadata"][name] for name in ("name", "namespace", "uid", "labels") if name in obj["metadata"]}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": kept}


def fail(module: AnsibleModule, message: str, result: dict[str, Any]) -> NoReturn:
    module.fail_json(msg=message, **result, invocation={"module_args": kube.hidden(module.params)})


if __name__ == "__main__":
    main()
