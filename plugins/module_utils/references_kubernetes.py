# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with what only engine kubernetes reads. Checks yield text, nobody raises."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services
from ansible_collections.sidecar.mesh.plugins.module_utils.check import plain_repr, words
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_drain import has_shell
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_pod import PROBE_KINDS
from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Item = dict[str, Any]

# Objects of Kubernetes' own that a workload's would take over.
_TAKEN_ACCOUNT = "default"
_TAKEN_SERVICE = ("kubernetes", "default")


def service(path: str, item: Item, mesh: Item, deployed: bool) -> Iterator[str]:
    yield from _peers(f"{path}.allow_from", item["allow_from"])
    yield from _peers(f"{path}.allow_to", item["allow_to"])
    for name, probe in item["probes"].items():
        if probe:
            yield from _probe(f"{path}.probes.{name}", name, probe)
    yield from _pod(path, item)
    if not services.runs_here(item):
        yield from _idle(path, item)
        return
    if deployed:
        yield from _names(path, item, mesh)
        if services.has_sidecar(item):
            yield from _metrics(f"{path}.sidecar.metrics", item["sidecar"], mesh)
            yield from _shell(f"{path}.sidecar.image", item["sidecar"], mesh)


def front_proxy(path: str, item: Item, mesh: Item, deployed: bool) -> Iterator[str]:
    yield from _peers(f"{path}.allow_to", item["allow_to"])
    yield from _pod(path, item)
    yield from _expose(f"{path}.expose", item)
    if deployed:
        yield from _names(path, item, mesh)
        yield from _metrics(f"{path}.metrics", item, mesh)
        yield from _shell(f"{path}.image", item, mesh)


def policies(mesh: Item) -> Iterator[str]:
    if mesh["network_policy"]:
        for key in ("metrics_from", "dns"):
            yield from _peers(f"mesh_network_policy.{key}", mesh["network_policy"][key])


def _names(path: str, item: Item, mesh: Item) -> Iterator[str]:
    if item["name"] == _TAKEN_ACCOUNT and not item["pod"]["service_account"]:
        yield (
            f"{path}.name: {item['name']!r} is the name of a ServiceAccount of Kubernetes' own; give another name, or "
            "pod.service_account"
        )
    if (item["name"], mesh["namespace"]) == _TAKEN_SERVICE:
        yield f"{path}.name: {item['name']!r} is a Service of Kubernetes' own in namespace default; give another name"
    if mesh["config_delivery"] == "ads" and item["name"] == names.control_plane(mesh["name"]):
        yield f"{path}.name: {item['name']!r} is the mesh's control plane; give another name"


def _metrics(path: str, envoy: Item, mesh: Item) -> Iterator[str]:
    """Publishing waits for what this listener tells."""
    delivery = mesh["config_delivery"]
    if not envoy["metrics"] and delivery != "static":
        yield (
            f"{path}: false is not allowed with mesh_config_delivery {delivery}, which reads there what Envoy has "
            "accepted; remove it, or set mesh_config_delivery: static"
        )


def _shell(path: str, envoy: Item, mesh: Item) -> Iterator[str]:
    """By it a proxy starts that may have to do without its control plane."""
    image = envoy["image"] or mesh["envoy_image"]
    if mesh["config_delivery"] == "ads" and not has_shell(image):
        yield (
            f"{path if envoy['image'] else 'mesh_envoy_image'}: {image!r} has no shell, by which Envoy starts from "
            "files when the control plane of mesh_config_delivery ads is away; give one that is not distroless"
        )


def _idle(path: str, item: Item) -> Iterator[str]:
    kind = " or ".join(key for key in ("endpoints", "host", "versions") if item[key])
    given = [key for key in ("build", "allow_from", "allow_to", "kubernetes_patch") if item[key]]
    given += ["probes"] if any(item["probes"].values()) else []
    for key in given:
        yield f"{path}.{key}: has no effect; a service that does not run here ({kind}) has no pods here"


def _probe(path: str, name: str, probe: Item) -> Iterator[str]:
    kinds = [kind for kind in PROBE_KINDS if probe[kind]]
    if len(kinds) != 1:
        yield f"{path}: has {words(kinds) if kinds else 'no kind'}; give exactly one of {words(PROBE_KINDS)}"
    for key in ("period", "timeout", "initial_delay"):
        if seconds(probe[key]) % 1:
            yield f"{path}.{key}: {probe[key]!r} is not allowed; Kubernetes takes whole seconds"
    if name != "readiness" and probe["success_threshold"] != 1:
        yield f"{path}.success_threshold: {probe['success_threshold']} is not allowed; Kubernetes takes 1 for {name}"
    if probe["exec"] and not probe["exec"]["command"]:
        yield f"{path}.exec.command: is empty; give a command"


def _pod(path: str, item: Item) -> Iterator[str]:
    pod = item["pod"]
    for key in pod["labels"]:
        if names.is_own_label(key):
            yield f"{path}.pod.labels.{key}: is a label of the mesh; give another name"
    prefix = names.OWN_VOLUMES
    taken = dict.fromkeys(names.CONTAINERS, "is a container of the mesh; give another name")
    given = dict.fromkeys(item.get("environment", ()), "is in environment, too; give it once")
    for where, name in _named(f"{path}.pod", pod, "volumes"):
        if name.startswith(prefix):
            yield f"{where}: {name!r} is not allowed; names that begin with {prefix!r} are the mesh's"
    for key, refused in (("init_containers", taken), ("env", given)):
        for where, name in _named(f"{path}.pod", pod, key):
            if name in refused:
                yield f"{where}: {name!r} {refused[name]}"
    for key in ("volumes", "init_containers", "env"):
        yield from (f"{where}: is missing; give a name" for where, name in _named(f"{path}.pod", pod, key) if not name)


def _named(path: str, pod: Item, key: str) -> Iterator[tuple[str, str]]:
    """Where the names of a list of objects are, and the names."""
    for index, entry in enumerate(pod.get(key, [])):
        name = entry.get("name")
        yield f"{path}.{key}[{index}].name", name if isinstance(name, str) else ""


def _expose(path: str, front: Item) -> Iterator[str]:
    expose, kind = front["expose"], services.exposed_as(front)
    ports = [str(listener["port"]) for listener in front["listeners"]]
    for port in expose["node_ports"]:
        if port not in ports:
            yield f"{path}.node_ports.{port}: is no port of listeners (known: {', '.join(ports)})"
    idle = {
        "node_ports": kind == "ClusterIP",
        "external_traffic_policy": kind == "ClusterIP",
        "load_balancer_class": kind != "LoadBalancer",
        "load_balancer_source_ranges": kind != "LoadBalancer",
    }
    for key, has_no_use in idle.items():
        if has_no_use and expose[key]:
            yield f"{path}.{key}: has no meaning for a Service of type {kind}; remove it, or give another type"


def _peers(path: str, peers: list[Item | None]) -> Iterator[str]:
    for index, peer in enumerate(peers):
        if peer is None:
            continue
        where = f"{path}[{index}]"
        alone = [key for key in ("host", "cidr") if peer.get(key)]
        together = [key for key in ("app", "pods", "namespace") if peer[key]]
        if len(alone) + bool(together) != 1:
            given = words([*alone, *together]) or "nothing"
            choices = words([*(["host"] if "host" in peer else []), "cidr", "pods (app, pods, namespace)"])
            yield f"{where}: has {given}; give {choices}"
        if peer["app"] and "app" in peer["pods"]:
            yield f"{where}.pods.app: {plain_repr(peer['pods']['app'])} is beside app; give one of them"
