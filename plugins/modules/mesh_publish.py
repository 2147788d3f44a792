#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_publish
short_description: Publish Envoy configurations to a mesh that serves on Kubernetes
version_added: 0.1.0
description:
  - Brings the ConfigMaps of a mesh that exist to what is given, while the pods that have them serve on.
  - All proxies take a change together, in steps, so that no request meets a route without its cluster or a port nobody
    listens on yet. Steps that change nothing are left out.
  - A step is written to the ConfigMaps by server-side apply. The pods that have them are annotated, upon which their
    kubelets bring them up to date within about a second instead of about a minute. The next step begins when the Envoy
    of every running pod has accepted every file, as its metrics listener says.
  - ConfigMaps of pods that are to be rolled, because they were started with another one of their workload, take what
    the others take, and keep their bootstrap and what their application uses.
  - When an Envoy refuses a file, the former content is put back in the same way, and the module fails with Envoy's
    reason.
  - A run that was cut off is resumed by the next one, from what the ConfigMaps hold then.
  - ConfigMaps that do not exist are left to M(sidecar.mesh.apply).
options:
  namespace:
    description: Namespace of the mesh.
    type: str
    required: true
  mesh:
    description: Name of the mesh, which its objects have as label C(app.kubernetes.io/part-of).
    type: str
    required: true
  config_maps:
    description: The ConfigMaps of all proxies of the mesh, as they are to be.
    type: list
    elements: dict
    required: true
  timeout:
    description:
      - Seconds in which the proxies must have accepted one step. What does not answer meanwhile, be it the API server,
        is asked again.
      - Without the right to patch pods, a step takes as long as kubelets take by themselves, so give it 120 then.
    type: int
    default: 60
  force_conflicts:
    description: Whether files that another field manager has applied to the ConfigMaps are taken over.
    type: bool
    default: false
author:
  - sidecar.mesh contributors (@sidecar-mesh)
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
attributes:
  check_mode:
    description: Reports what would change, without a change.
    support: full
  diff_mode:
    description: Shows every file that changes.
    support: full
seealso:
  - module: sidecar.mesh.apply
  - module: sidecar.mesh.mesh_status
"""

EXAMPLES = r"""
- name: Publish a change to the pods that run
  sidecar.mesh.mesh_publish:
    namespace: shop
    mesh: shop
    config_maps: "{{ manifests | map(attribute='objects') | flatten | selectattr('kind', '==', 'ConfigMap') }}"
"""

RETURN = r"""
published:
  description: Files that changed, by ConfigMap.
  type: dict
  returned: success
  sample: {cart-envoy-1f0c5e2a: [rds.egress_9001.yaml]}
steps:
  description: The steps that were made, each with the ConfigMaps it wrote, the pods that accepted it, and seconds.
  type: list
  elements: dict
  returned: success, not in check mode
  sample: [{step: 4, config_maps: [cart-envoy-1f0c5e2a], pods: 3, seconds: 1.1}]
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import (
    config_maps,
    control_plane,
    kube,
    kube_proxies,
    metrics,
    names,
    pods,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import file_versions, pending
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import HAS_YAML

Object = dict[str, Any]
Files = dict[str, str]

WORKERS = 16
POLL_SECONDS = 0.08
LIST_SECONDS = 1.0
TOUCH_AGAIN_SECONDS = 1.5
"""When a pod is annotated once more: its kubelet may have looked before it knew of the ConfigMap's change."""
REFUSED_SECONDS = 10.0
"""When a proxy that refused something before this run counts as one that refused what is there."""
PUT_BACK_SECONDS = 20.0


class PublishError(Exception):
    """The proxies did not take a step; the text has a line for each of them."""


class RefusedError(PublishError):
    """Because Envoys refused it."""


@dataclass
class Proxy:
    """A running Envoy of the mesh. ``refused``: how often it had refused each file when it last ran all of them."""

    pod: Object
    config_map: str
    refused: dict[str, int] | None = None
    answered: bool = False
    touches: int = 0

    def __str__(self) -> str:
        return f"pod {self.pod['metadata']['name']}"


class Answer(NamedTuple):
    """What became of one proxy in a step."""

    proxy: Proxy
    late: str = ""
    refused: str = ""
    waited: bool = True


@dataclass
class Mesh:
    """What is published to. ``content``: what each ConfigMap holds, ``before``: what it held a step ago."""

    cluster: kube.Cluster
    pool: ThreadPoolExecutor
    params: Object
    existing: dict[str, Object]
    content: dict[str, Files]
    before: dict[str, Files]
    proxies: dict[str, Proxy] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    senders: list[Object] = field(default_factory=list)
    """The control plane's pods, if the mesh has one."""
    sent: dict[str, Object] = field(default_factory=dict)
    """What the control plane says of the proxies that are connected to it, by pod."""
    problem: str = ""
    """What it has against the newest configuration."""


def passes(error: kube.ApiError) -> bool:
    """Whether it is a matter of time: an API server that is gone, or has too much to do."""
    return error.status in (0, 429) or error.status >= 500


def patiently(deadline: float, function: Callable[[], Any]) -> Any:
    """The function's result, asked for until the API server gives one."""
    while True:
        try:
            return function()
        except kube.ApiError as exc:
            if not passes(exc) or time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS * 5)


def refresh(mesh: Mesh) -> None:
    """Look again which proxies run. One whose container was started again is another one."""
    known, found = mesh.proxies, {}
    running = kube_proxies.of_mesh(mesh.cluster, kube_proxies.PODS, mesh.params["namespace"], mesh.params["mesh"])
    mesh.senders = [pod for pod in running if control_plane.is_replica(pod)]
    for pod in running:
        for name in config_maps_of(mesh, pod):
            if pods.runs(pod, names.ENVOY_CONTAINER):
                started = pods.container_status(pod, names.ENVOY_CONTAINER).get("restartCount", 0)
                key = f"{pod['metadata']['uid']}/{name}/{started}"
                found[key] = known.get(key) or Proxy(pod, name)
                found[key].pod = pod
    mesh.proxies = found


def config_maps_of(mesh: Mesh, pod: Object) -> list[str]:
    return [name for name in pods.config_maps(pod) if name in mesh.content]


def settle(mesh: Mesh, names: set[str], timeout: float) -> list[Answer]:
    """Wait until every proxy that runs runs what its ConfigMap holds, or something is in its way."""
    deadline = time.monotonic() + timeout
    asked: dict[str, Future[Answer]] = {}
    while True:
        patiently(deadline, lambda: refresh(mesh))
        for key, proxy in mesh.proxies.items():
            if proxy.config_map in names and key not in asked:
                asked[key] = mesh.pool.submit(await_proxy, mesh, key, deadline)
        if not listen(mesh, list(asked.values())):
            return [future.result() for future in asked.values()]


def listen(mesh: Mesh, asked: list[Future[Answer]]) -> bool:
    """Hear what the control plane says, for as long as a list of pods is believed; whether somebody still waits."""
    until = time.monotonic() + LIST_SECONDS
    while True:
        if mesh.senders:
            mesh.sent, mesh.problem = control_plane.connected(mesh.cluster, mesh.senders)
        waiting = bool(wait_for(asked, timeout=POLL_SECONDS if mesh.senders else LIST_SECONDS).not_done)
        if not waiting or time.monotonic() > until:
            return waiting


def await_proxy(mesh: Mesh, key: str, deadline: float) -> Answer:
    """Ask one proxy until it runs what its ConfigMap holds."""
    begun = time.monotonic()
    proxy = mesh.proxies[key]
    touch_at = begun + (TOUCH_AGAIN_SECONDS if proxy.touches else 0)
    while key in mesh.proxies:
        proxy = mesh.proxies[key]
        late, refused, trouble = ask(mesh, proxy)
        now = time.monotonic()
        if not late:
            return Answer(proxy)
        if trouble and not proxy.answered and not pods.container_status(proxy.pod, names.ENVOY_CONTAINER).get("ready"):
            break
        # Of a proxy that was never seen well nobody knows whether it was this content that it refused.
        if refused and (proxy.refused is not None or now > begun + REFUSED_SECONDS):
            return Answer(proxy, refused=refusal(mesh, proxy, refused))
        if now > deadline:
            wrong = f" (control plane: {mesh.problem})" if mesh.problem else ""
            return Answer(proxy, late=lateness(mesh, proxy, trouble or f"{', '.join(late)} not active{wrong}"))
        if now > touch_at and not trouble:
            touch(mesh, proxy)
            touch_at = now + TOUCH_AGAIN_SECONDS * (proxy.touches + 1)
        time.sleep(POLL_SECONDS)
    return Answer(proxy, waited=False)


def ask(mesh: Mesh, proxy: Proxy) -> tuple[list[str], list[str], str]:
    """The files that a proxy does not run yet, those of them that it has refused, and why it could not be asked."""
    content = mesh.content[proxy.config_map]
    entry = mesh.sent.get(proxy.pod["metadata"]["name"])
    if entry:
        proxy.answered, proxy.refused = True, proxy.refused or {}
        late = control_plane.late(entry, content)
        return late, [name for name in late if name in control_plane.refused(entry)], ""
    versions = file_versions(content)
    ports = metrics.ports(content, mesh.before[proxy.config_map])
    try:
        stats = kube_proxies.metrics_page(mesh.cluster, proxy.pod, ports, metrics.config_page())
    except kube_proxies.SilentError as exc:
        return sorted(versions), [], str(exc)
    except kube.ApiError as exc:
        if exc.status == 404:  # and refresh() will notice that the pod is gone
            return sorted(versions), [], "is gone"
        if not passes(exc):
            raise
        return sorted(versions), [], kube.why(exc)
    proxy.answered = True
    late = pending(stats, versions)
    refused = config_maps.newly_refused(stats, late, proxy.refused or {})
    if not late:
        proxy.refused = config_maps.refusal_counts(stats, content)
    return late, refused, ""


def touch(mesh: Mesh, proxy: Proxy) -> None:
    """Have the pod's kubelet look at its ConfigMaps; not of one that is sent what they have."""
    if proxy.pod["metadata"]["name"] in mesh.sent:
        return
    value = config_maps.mark(mesh.content[proxy.config_map], proxy.touches)
    proxy.touches += 1
    try:
        kube_proxies.touch(mesh.cluster, proxy.pod, config_maps.TOUCHED, value)
    except kube.ApiError as exc:
        # A pod that is gone needs none, and whoever may not do this waits for kubelets.
        if exc.status == 403 and kube.why(exc) not in mesh.warnings:
            mesh.warnings.append(kube.why(exc))


def refusal(mesh: Mesh, proxy: Proxy, files: list[str]) -> str:
    seconds = REFUSED_SECONDS + mesh.params["timeout"]
    found = kube_proxies.reasons(mesh.cluster, proxy.pod, seconds)
    return f"{proxy}: Envoy refused {', '.join(files)}: {'; '.join(found) or f'see {log_command(proxy)}'}"


def lateness(mesh: Mesh, proxy: Proxy, why: str) -> str:
    metadata = proxy.pod["metadata"]
    node = proxy.pod["spec"].get("nodeName", "no node")
    look = f"kubectl -n {metadata['namespace']} describe pod {metadata['name']}"
    return f"{proxy} on {node}: {why} after {mesh.params['timeout']} s; look at: {look}; {log_command(proxy)}"


def log_command(proxy: Proxy) -> str:
    metadata = proxy.pod["metadata"]
    return f"kubectl -n {metadata['namespace']} logs {metadata['name']} -c {names.ENVOY_CONTAINER}"


def write(mesh: Mesh, name: str, content: Files, deadline: float) -> None:
    """One ConfigMap; what was deleted meanwhile stays so."""
    body = config_maps.written(mesh.existing[name], content, names.MANAGER)
    query = {"fieldManager": names.MANAGER, "force": str(mesh.params["force_conflicts"]).lower()}
    path = kube_proxies.object_path(kube_proxies.CONFIG_MAPS, mesh.params["namespace"], name)
    try:
        patiently(deadline, lambda: kube.call(mesh.cluster, "PATCH", path, query, body, kube.APPLY))
    except kube.ApiError as exc:
        if exc.status != 404 and "uid mismatch" not in exc.message:
            raise
    mesh.before[name], mesh.content[name] = mesh.content[name], content


def take_step(mesh: Mesh, moving: dict[str, Files], timeout: float) -> list[Answer]:
    """Write one step to its ConfigMaps, and wait for their pods."""
    deadline = time.monotonic() + timeout
    list(mesh.pool.map(lambda item: write(mesh, item[0], item[1], deadline), moving.items()))
    running = [proxy for proxy in list(mesh.proxies.values()) if proxy.config_map in moving]
    for proxy in running:
        proxy.touches = 0
    list(mesh.pool.map(lambda proxy: touch(mesh, proxy), running))
    return settle(mesh, set(moving), timeout)


def publish(mesh: Mesh, plans: dict[str, list[Files]], timeout: float, careful: bool = True) -> list[Object]:
    """Take all ConfigMaps through their states together; the steps that were made.

    Raises PublishError when ``careful``.
    """
    made = []
    for number in range(1, max(map(len, plans.values()), default=1)):
        moving = {name: states[number] for name, states in plans.items() if len(states) > number}
        moving = {name: content for name, content in moving.items() if content != mesh.content[name]}
        if not moving:
            continue
        begun = time.monotonic()
        answers = take_step(mesh, moving, timeout)
        if careful:
            check(answers)
        made.append(
            {
                "step": number,
                "config_maps": sorted(moving),
                "pods": sum(answer.waited for answer in answers),
                "seconds": round(time.monotonic() - begun, 2),
            }
        )
    return made


def check(answers: list[Answer]) -> None:
    """Raises PublishError for all that is in the way."""
    refused = sorted(answer.refused for answer in answers if answer.refused)
    late = sorted(answer.late for answer in answers if answer.late)
    if refused:
        raise RefusedError("\n".join([*refused, *late]))
    if late:
        raise PublishError("\n".join(late))


def bring(mesh: Mesh, targets: dict[str, Files]) -> list[Object]:
    """All ConfigMaps to what they are to hold; the steps that were made. Raises PublishError."""
    timeout = mesh.params["timeout"]
    # What an earlier run has written may not have reached every pod yet.
    answers = settle(mesh, set(mesh.content), timeout)
    stuck = {
        answer.proxy.config_map
        for answer in answers
        if answer.refused and mesh.content[answer.proxy.config_map] != targets[answer.proxy.config_map]
    }
    check([answer for answer in answers if answer.proxy.config_map not in stuck])
    before = dict(mesh.content)
    plans = {name: config_maps.states(old, targets[name], name in stuck) for name, old in before.items()}
    try:
        return publish(mesh, plans, timeout)
    except RefusedError:
        # In the same order as ever; whatever refuses that, too, gets its former content at once.
        good = {name: old for name, old in before.items() if name not in stuck}
        back = {name: config_maps.states(mesh.content[name], old, False) for name, old in good.items()}
        publish(mesh, back, PUT_BACK_SECONDS, careful=False)
        raise


def report(params: Object, old: dict[str, Files], new: dict[str, Files], diff: bool) -> Object:
    changed = {name: config_maps.changed_files(old[name], new[name]) for name in sorted(old)}
    published = {name: files for name, files in changed.items() if files}
    result: Object = {"changed": bool(published), "published": published}
    if diff:
        result["diff"] = [
            entry for name in published for entry in config_maps.diffs(params["namespace"], name, old[name], new[name])
        ]
    return result


def run(module: AnsibleModule) -> Object:
    """Raises ApiError, ConnectError, PublishError."""
    params = module.params
    cluster = kube.connect(params, WORKERS)
    deadline = time.monotonic() + params["timeout"]
    where = (kube_proxies.CONFIG_MAPS, params["namespace"], params["mesh"])
    found = patiently(deadline, lambda: kube_proxies.of_mesh(cluster, *where))
    targets = config_maps.targets(found, params["config_maps"])
    existing = {item["metadata"]["name"]: item for item in found if item["metadata"]["name"] in targets}
    content = {name: config_maps.files(item) for name, item in existing.items()}
    result = report(params, content, targets, module._diff)
    if not module.check_mode:
        with ThreadPoolExecutor(max_workers=WORKERS) as pool:
            mesh = Mesh(cluster, pool, params, existing, dict(content), dict(content))
            try:
                result["steps"] = bring(mesh, targets)
            finally:
                for warning in mesh.warnings:
                    module.warn(f"{warning}; until then a change takes as long as kubelets take by themselves")
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kube.AUTH_OPTIONS,
            "namespace": {"type": "str", "required": True},
            "mesh": {"type": "str", "required": True},
            "config_maps": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 60},
            "force_conflicts": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if not kube.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    problem = ""
    result: Object = {}
    try:
        result = run(module)
    except RefusedError as exc:
        problem = f"The former configuration serves on, because Envoy did not take the new one:\n{exc}"
    except PublishError as exc:
        problem = f"The mesh serves on, half changed; run again when this is mended:\n{exc}"
    except kube.ApiError as exc:
        problem = kube.why(exc)
        if exc.status == 409:
            problem += "; let that manager give the files up, or set force_conflicts"
    except kube.ConnectError as exc:
        problem = str(exc)
    if problem:
        module.fail_json(msg=problem)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
