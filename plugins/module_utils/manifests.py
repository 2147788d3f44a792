# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes' objects of a mesh: of every service and front proxy its ServiceAccount, ConfigMap, Service,
PodDisruptionBudget and Deployment, the user's patch merged last. Pure; who applies them is not known here.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import BOOTSTRAP_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.files import Files, proxy_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_pod import front_pod, pod_labels, service_pod
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_probes import envoy_question
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present

Item = dict[str, Any]

LARGEST_CONFIG_MAP = 2**20
"""Bytes of all keys and values. Source: Kubernetes docs, "ConfigMaps"."""
_HISTORY = 2
_APP_PROTOCOLS = {"http": "http", "http2": "kubernetes.io/h2c", "grpc": "kubernetes.io/h2c"}
"""Source: Kubernetes docs, "Service", application protocol."""


def mesh_manifests(model: Item, folders: dict[str, Files] | None = None) -> list[Item]:
    """One entry a service that runs here and a front proxy: ``workload``, ``component``, ``objects`` in their order.

    ``folders``: the files of each workload's proxy, for callers who have made them already.

    Raises SelectionError for a model of another engine, ModelError where Kubernetes would not take an object.
    """
    mesh = model["mesh"]
    if mesh["engine"] != "kubernetes":
        raise SelectionError(f"mesh_engine: {mesh['engine']!r} has no manifests; give a model of engine kubernetes")
    proxies = {proxy["workload"]: proxy for proxy in model["proxies"]}
    if folders is None:
        folders = {name: proxy_files(proxy) for name, proxy in proxies.items()}
    here = [service for service in model["services"] if services.runs_here(service)]
    problems = [*_missing_images(here, mesh), *_too_large(folders)]
    if problems:
        raise ModelError(problems)
    return [
        *(_service(item, proxies.get(item["name"]), folders.get(item["name"], {}), mesh) for item in here),
        *(_front(item, proxies[item["name"]], folders[item["name"]], mesh) for item in model["front_proxies"]),
    ]


def _missing_images(here: list[Item], mesh: Item) -> list[str]:
    return [
        f"mesh_images.{service['name']}: is missing; its image is built, and role images has its reference"
        if service["build"]
        else f"mesh_services ({service['name']}).image: is missing; a pod runs from it"
        for service in here
        if not image(service, mesh)
    ]


def _too_large(folders: dict[str, Files]) -> list[str]:
    sizes = {name: sum(len(f"{key}{text}".encode()) for key, text in files.items()) for name, files in folders.items()}
    return [
        f"{name}: its configuration has {size:,} bytes, and a ConfigMap takes {LARGEST_CONFIG_MAP:,}; give it fewer "
        "routes or upstreams, such as by a second front proxy"
        for name, size in sizes.items()
        if size > LARGEST_CONFIG_MAP
    ]


def image(service: Item, mesh: Item) -> str:
    """Of a service's application; empty where nobody said which."""
    found: str = mesh["images"].get(service["name"]) or service["image"] or ""
    return found


def _service(service: Item, proxy: Item | None, files: Files, mesh: Item) -> Item:
    config_map = _config_map_name(proxy, files, service["upstreams"]) if proxy else ""
    spec = service_pod(service, proxy, image(service, mesh), config_map, mesh)
    ports = [_service_port(names.APPLICATION_CONTAINER, service["port"], _APP_PROTOCOLS.get(service["protocol"]))]
    if proxy:
        ports.insert(0, _service_port(names.SIDECAR, services.port(service), ports[0].get("appProtocol")))
    # DNS gives the addresses of the pods; callers' proxies choose among them.
    network = {"clusterIP": "None", "ports": ports}
    return _workload(service, names.SIDECAR, {config_map: files} if proxy else {}, network, {}, spec, mesh)


def _front(front: Item, proxy: Item, files: Files, mesh: Item) -> Item:
    config_map = _config_map_name(proxy, files, [])
    expose, kind = front["expose"], services.exposed_as(front)
    network = present(
        {
            "type": kind,
            "externalTrafficPolicy": expose["external_traffic_policy"],
            "loadBalancerClass": expose["load_balancer_class"],
            "loadBalancerSourceRanges": expose["load_balancer_source_ranges"],
            "ports": [_front_port(listener, expose["node_ports"]) for listener in front["listeners"]],
        }
    )
    spec = front_pod(front, proxy, config_map, mesh)
    annotations = expose["annotations"]
    return _workload(front, names.FRONT_PROXY, {config_map: files}, network, annotations, spec, mesh)


def _workload(
    workload: Item, component: str, config: dict[str, Files], network: Item, annotations: Item, spec: Item, mesh: Item
) -> Item:
    """The objects of a workload. ``config``: its ConfigMap by name; ``network``: the spec of its Service."""
    name, selector = workload["name"], names.selector(workload["name"])

    def made(api: str, kind: str, patch: str, body: Item, own_name: str = name, notes: Item | None = None) -> Item:
        metadata = {"name": own_name, "namespace": mesh["namespace"], **present({"annotations": notes or {}})}
        labels = names.labels(mesh["name"], name, component)
        base = {"apiVersion": api, "kind": kind, "metadata": {**metadata, "labels": labels}, **body}
        merged: Item = merge_patch(base, (workload["kubernetes_patch"] or {}).get(patch) or {})
        return merged

    # A budget for one replica would keep its node from being drained, or say nothing.
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": selector}} if workload["replicas"] >= 2 else None
    deployment = {
        "replicas": workload["replicas"],
        "revisionHistoryLimit": _HISTORY,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": _rolling_update(workload)},
        "template": {
            "metadata": present(
                {
                    "labels": pod_labels(workload, component, mesh),
                    "annotations": {
                        "kubectl.kubernetes.io/default-container": spec["containers"][0]["name"],
                        **workload["pod"]["annotations"],
                    },
                }
            ),
            "spec": spec,
        },
    }
    account = {"automountServiceAccountToken": False}
    objects = [
        *([] if workload["pod"]["service_account"] else [made("v1", "ServiceAccount", "service_account", account)]),
        *(made("v1", "ConfigMap", "config_map", {"data": files}, own) for own, files in config.items()),
        made("v1", "Service", "service", {"spec": {"selector": selector, **network}}, notes=annotations),
        *([made("policy/v1", "PodDisruptionBudget", "pod_disruption_budget", {"spec": budget})] if budget else []),
        made("apps/v1", "Deployment", "deployment", {"spec": deployment}),
    ]
    return {"workload": name, "component": component, "objects": objects}


def _rolling_update(workload: Item) -> Item:
    if workload.get("expose", {}).get("host_ports"):
        # A node's port is free only after the old pod has left.
        return {"maxSurge": 0, "maxUnavailable": 1}
    return {"maxSurge": "25%", "maxUnavailable": 0}


def _config_map_name(proxy: Item, files: Files, upstreams: list[Item]) -> str:
    """Its hash is of what a pod is started with: a change of it, and of nothing else, replaces pods.

    ``upstreams``: those that the application knows, by name and port.
    """
    if proxy["delivery"] == "static":
        return names.config_map(proxy["workload"], content_hash(files))
    application = [_reached_by(item) for item in clusters(proxy) if item["name"] == names.APPLICATION_CLUSTER]
    called = [[item["name"], item["port"]] for item in proxy["listeners"] if item["direction"] == "egress"]
    called += [[item["service"], item["port"] or 0] for item in upstreams]
    certificates = proxy["paths"]["certificates"]
    # A listener that the kubelet asks must not leave a pod that it asks there.
    started_with = [files[BOOTSTRAP_FILE], application, sorted(called), certificates, envoy_question(proxy)]
    return names.config_map(proxy["workload"], content_hash(started_with))


def _reached_by(cluster: Item) -> Item:
    """Address and protocol, which change with the application; a cluster's times, say, running pods can take."""
    return {key: cluster.get(key) for key in ("load_assignment", "typed_extension_protocol_options")}


def _service_port(name: str, port: int, protocol: str | None) -> Item:
    return present({"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": protocol})


def _front_port(listener: Item, node_ports: dict[str, int]) -> Item:
    kind = "https" if listener["protocol"] == "http" and listener["tls"] else listener["protocol"]
    port = listener["port"]
    protocol = kind if kind in ("http", "https") else None
    return {
        **_service_port(names.port_name(kind, port), port, protocol),
        **present({"nodePort": node_ports.get(str(port))}),
    }
