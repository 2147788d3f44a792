#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_status
short_description: Tell how a mesh is
version_added: 0.1.0
description:
  - Lists services and front proxies with the replicas that are ready and that are wanted, each with the configuration
    that its Envoy has accepted, updates that it has refused, and the days that certificates last.
  - On Kubernetes it reads Deployments, pods, ConfigMaps, Secrets with certificates, and by way of the API server the
    metrics listeners of pods. What a right is missing for is left out and told.
  - On one machine it reads supervisor's processes, the config folders and the admin interfaces.
  - Changes nothing.
options:
  mesh:
    description: Name of the mesh.
    type: str
    required: true
  namespace:
    description: Namespace of a mesh on Kubernetes.
    type: str
  socket:
    description: Path of the unix socket of supervisor, for a mesh on one machine.
    type: path
  replicas:
    description: With O(socket), every replica of the mesh, as C(replicas) of P(sidecar.mesh.mesh_model#filter).
    type: list
    elements: dict
    default: []
  proxies:
    description: With O(socket), every proxy of the mesh, as filter P(sidecar.mesh.mesh_files#filter) lists them.
    type: list
    elements: dict
    default: []
  control_plane:
    description: With O(socket), address and port at which the control plane of the mesh, if it has one, is asked.
    type: str
  certificates:
    description: With O(socket), the folder that has a folder with C(tls.crt) for each certificate.
    type: path
author:
  - sidecar.mesh contributors (@sidecar-mesh)
extends_documentation_fragment:
  - sidecar.mesh.kubernetes_auth
attributes:
  check_mode:
    description: Reads in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
seealso:
  - module: sidecar.mesh.mesh_publish
"""

EXAMPLES = r"""
- name: See how the mesh is
  sidecar.mesh.mesh_status:
    mesh: shop
    namespace: shop
  register: mesh

- name: Show it
  ansible.builtin.debug:
    msg: "{{ mesh.lines }}"
"""

RETURN = r"""
workloads:
  description: Services and front proxies. What is not known is null.
  type: list
  elements: dict
  returned: success
  contains:
    name:
      description: Its name.
      type: str
      sample: cart
    component:
      description: V(sidecar) for a service, V(front-proxy) for a front proxy.
      type: str
      sample: sidecar
    ready:
      description: Replicas that are ready.
      type: int
      sample: 2
    wanted:
      description: Replicas there are to be.
      type: int
      sample: 3
    replicas:
      description: Those that are there.
      type: list
      elements: dict
      contains:
        name:
          description: Name of the pod, or of the replica.
          type: str
          sample: cart-6c5f7d9b4-x2x7k
        place:
          description: Its node, or its address.
          type: str
          sample: node-1
        state:
          description: V(ready), or what keeps it from that.
          type: str
          sample: "application: CrashLoopBackOff"
        restarts:
          description: Restarts of its containers.
          type: int
          sample: 0
        config:
          description:
            - V(current) when its Envoy runs all that its ConfigMap or folder holds; else C(behind) or C(refused), and
              the files.
          type: str
          sample: "behind: rds.ingress_8786.yaml"
        refused:
          description: How many updates its Envoy has refused since it was started.
          type: int
          sample: 0
        certificate_days:
          description: Days until the first certificate that its Envoy has expires.
          type: int
          sample: 82
certificates:
  description: Certificates that proxies serve or show, by the name of their Secret, with the days that are left.
  type: list
  elements: dict
  returned: success
  sample: [{name: envoy-certs, days: 82}]
notes:
  description: Reasons of refusals, and what could not be read.
  type: list
  elements: str
  returned: success
  sample: ["jane may not list secrets in namespace shop: give it a Role and a RoleBinding with verb list"]
lines:
  description: All of it as a table for people.
  type: list
  elements: str
  returned: success
  sample: ["Mesh 'shop' in namespace shop"]
"""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import (
    admin,
    config_maps,
    control_plane,
    kube,
    kube_proxies,
    metrics,
    names,
    pods,
    status,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import FALLBACK_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import HAS_YAML
from ansible_collections.sidecar.mesh.plugins.module_utils.supervisor import Supervisor, SupervisorError

Object = dict[str, Any]

WORKERS = 16
REFUSED_SECONDS = 3600
"""How far back a reason of a refusal is looked for."""
RUNNING = "RUNNING"


def now() -> datetime:
    return datetime.now(tz=timezone.utc)  # noqa: UP017 - as older Pythons do


# On Kubernetes


def on_kubernetes(params: Object) -> Object:
    """Raises ConnectError, and ApiError where it is not for want of a right."""
    cluster = kube.connect(params, WORKERS)
    namespace, notes = params["namespace"], []

    def listed(kind: kube.Resource) -> list[Object]:
        try:
            return kube_proxies.of_mesh(cluster, kind, namespace, params["mesh"])
        except kube.ApiError as exc:
            note(notes, exc)
            return []

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        kinds = (kube_proxies.DEPLOYMENTS, kube_proxies.PODS, kube_proxies.CONFIG_MAPS)
        found, running, maps = pool.map(listed, kinds)
        contents = {item["metadata"]["name"]: config_maps.files(item) for item in maps}
        running = [pod for pod in running if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
        sent = sent_to(cluster, running, notes)
        replicas = list(pool.map(lambda pod: replica(cluster, pod, contents, sent, notes), running))
        secrets = sorted({name for pod in running for name in certificates_of(pod)})
        read = list(pool.map(lambda name: secret(cluster, namespace, name, notes), secrets))
    by_workload: dict[str, list[Object]] = {}
    for pod, item in zip(running, replicas, strict=True):
        by_workload.setdefault(status.label(pod, names.WORKLOAD_LABEL), []).append(item)
    return {
        "workloads": status.deployments(found, by_workload),
        "certificates": [status.secret(item, now()) for item in read if item],
        "notes": sorted(set(notes)),
    }


def note(notes: list[str], exc: kube.ApiError) -> None:
    """Tell what is missing, and go on. Raises what is not a matter of one object or right."""
    if exc.status not in (403, 404):
        raise exc
    notes.append(kube.why(exc))


def sent_to(cluster: kube.Cluster, running: list[Object], notes: list[str]) -> dict[str, Object]:
    """What the control plane, if there is one, says of the proxies that are connected to it."""
    try:
        sent, problem = control_plane.connected(cluster, [pod for pod in running if control_plane.is_replica(pod)])
    except kube.ApiError as exc:
        note(notes, exc)
        return {}
    notes += [f"control plane: {problem}"] if problem else []
    return sent


def replica(
    cluster: kube.Cluster,
    pod: Object,
    contents: dict[str, dict[str, str]],
    sent: dict[str, Object],
    notes: list[str],
) -> Object:
    """A pod, and what its Envoy says."""
    found = status.pod(pod)
    files = next((contents[name] for name in pods.config_maps(pod) if name in contents), None)
    if files is None or not pods.runs(pod, names.ENVOY_CONTAINER):
        return found
    try:
        stats = kube_proxies.metrics_page(cluster, pod, metrics.ports(files), metrics.config_page())
    except kube_proxies.SilentError as exc:
        notes.append(f"pod {found['name']}: Envoy {exc}")
        return found
    except kube.ApiError as exc:
        note(notes, exc)
        return found
    told = status.configuration(files, stats, sent.get(found["name"]))
    if FALLBACK_FILE in files and found["name"] not in sent:
        notes.append(f"pod {found['name']}: is not connected to the control plane, and follows its ConfigMap")
    if told["refused"]:
        reasons = kube_proxies.reasons(cluster, pod, REFUSED_SECONDS)
        notes.extend(f"pod {found['name']}: Envoy refused an update: {reason}" for reason in reasons)
    return {**found, **told}


def certificates_of(pod: Object) -> list[str]:
    """Names of the Secrets from which a proxy has its certificates."""
    volumes = [item for item in pod["spec"].get("volumes") or [] if item["name"].startswith(names.OWN_VOLUMES)]
    return [item["secret"]["secretName"] for item in volumes if item.get("secret")]


def secret(cluster: kube.Cluster, namespace: str, name: str, notes: list[str]) -> Object:
    try:
        return kube.call(cluster, "GET", kube_proxies.object_path(kube_proxies.SECRETS, namespace, name))
    except kube.ApiError as exc:
        note(notes, exc)
        return {}


# On this machine


def on_this_machine(params: Object) -> Object:
    """Raises SupervisorError."""
    supervisor = Supervisor(params["socket"])
    processes = supervisor.processes() if supervisor.answers() else {}
    states = {name: process.state for name, process in processes.items()}
    notes = [] if states else [f"nothing runs: no supervisor answers at {params['socket']}"]
    proxies = {proxy["name"]: proxy for proxy in params["proxies"]}
    sender = params["control_plane"]
    sent, problem = control_plane.connected_here(sender) if sender else ({}, "")
    notes += [f"control plane: {problem}"] if problem else []
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        replicas = list(
            pool.map(
                lambda item: local_replica(item, states, proxies.get(item["name"]), sent, notes), params["replicas"]
            )
        )
    fronts = {proxy["workload"] for proxy in params["proxies"] if proxy["kind"] == "front"}
    folder = Path(params["certificates"] or "/nonexistent")
    return {
        "workloads": [
            {
                "name": name,
                "component": names.FRONT_PROXY if name in fronts else names.SIDECAR,
                "ready": sum(item["state"] == "ready" for item in items),
                "wanted": len(items),
                "replicas": items,
            }
            for name, items in by_name(params["replicas"], replicas).items()
        ]
        + ([local_control_plane(sender, states)] if sender else []),
        "certificates": [
            status.certificate(path.parent.name, path.read_text(encoding="utf-8"), now())
            for path in sorted(folder.glob("*/tls.crt"))
        ],
        "notes": sorted(set(notes)),
    }


def by_name(named: list[Object], items: list[Object]) -> dict[str, list[Object]]:
    found: dict[str, list[Object]] = {}
    for name, item in zip(named, items, strict=True):
        found.setdefault(name["workload"], []).append(item)
    return dict(sorted(found.items()))


def local_control_plane(address: str, states: dict[str, str]) -> Object:
    state = states.get(names.CONTROL_PLANE)
    ready = "ready" if state == RUNNING else f"{names.CONTROL_PLANE}: {state}" if state else "does not run"
    return {
        "name": names.CONTROL_PLANE,
        "component": names.CONTROL_PLANE,
        "ready": int(state == RUNNING),
        "wanted": 1,
        "replicas": [local_item(names.CONTROL_PLANE, address.rpartition(":")[0], ready)],
    }


def local_replica(
    item: Object, states: dict[str, str], proxy: Object | None, sent: dict[str, Object], notes: list[str]
) -> Object:
    """A replica: its processes, and what its Envoy and the control plane say."""
    prefix = f"{item['name']}."
    own = {name.removeprefix(prefix): state for name, state in states.items() if name.startswith(prefix)}
    wrong = [f"{name}: {state}" for name, state in sorted(own.items()) if state != RUNNING]
    state = ", ".join(wrong) or ("ready" if own else "does not run")
    found = local_item(item["name"], item["address"], state)
    if not proxy or not own:
        return found
    try:
        stats = admin.subscription_stats(proxy["admin"])
        files = folder_files(proxy["folder"])
        told = status.configuration(files, stats, sent.get(item["name"]))
        reasons = admin.refusal_reasons(proxy["admin"]) if told["refused"] else []
    except admin.UnreachableError as exc:
        notes.append(f"{item['name']}: Envoy does not answer: {exc}")
        return found
    if FALLBACK_FILE in files and item["name"] not in sent:
        notes.append(f"{item['name']}: is not connected to the control plane, and follows its folder")
    notes.extend(f"{item['name']}: Envoy refused an update: {reason}" for reason in reasons)
    return {**found, **told}


def local_item(name: str, place: str, state: str) -> Object:
    """A replica, before its Envoy was asked."""
    unknown = dict.fromkeys(("restarts", "config", "refused", "certificate_days"))
    return {"name": name, "place": place, "state": state, **unknown}


def folder_files(folder: str) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in Path(folder).glob("*.yaml")}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **kube.AUTH_OPTIONS,
            "mesh": {"type": "str", "required": True},
            "namespace": {"type": "str"},
            "socket": {"type": "path"},
            "replicas": {"type": "list", "elements": "dict", "default": []},
            "proxies": {"type": "list", "elements": "dict", "default": []},
            "control_plane": {"type": "str"},
            "certificates": {"type": "path"},
        },
        mutually_exclusive=[("namespace", "socket")],
        required_one_of=[("namespace", "socket")],
        supports_check_mode=True,
    )
    params = module.params
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    if params["namespace"] and not kube.HAS_KUBERNETES:
        module.fail_json(msg=missing_required_lib("kubernetes"))
    result: Object = {}
    try:
        result = on_kubernetes(params) if params["namespace"] else on_this_machine(params)
    except kube.ApiError as exc:
        module.fail_json(msg=kube.why(exc))
    except (kube.ConnectError, SupervisorError) as exc:
        module.fail_json(msg=str(exc))
    where = f"in namespace {params['namespace']}" if params["namespace"] else "on this machine"
    shown = status.lines(params["mesh"], where, result["workloads"], result["certificates"], result["notes"])
    module.exit_json(changed=False, lines=shown, **result)


if __name__ == "__main__":
    main()
