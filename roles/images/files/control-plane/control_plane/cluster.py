# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mesh's cluster says: the configurations of its proxies, and where the replicas of its services are.

Each kind is followed by a thread of its own, for the client waits where it reads. While the API server does not answer,
what it said last stays. Source: Kubernetes docs, "Kubernetes API Concepts", efficient detection of changes.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, names
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Replicas
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE

from control_plane.folders import Folder
from control_plane.logs import log

Object = dict[str, Any]
Kept = TypeVar("Kept")

SLICES = kube.Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", True)
CONFIG_MAPS = kube.Resource("v1", "ConfigMap", "configmaps", True)
WATCH_SECONDS = 240
_FIRST_DELAY, _MAX_DELAY = 0.5, 10.0
_GONE = 410
_SERVICE_LABEL = "kubernetes.io/service-name"


def follow(
    cluster: kube.Cluster,
    kind: kube.Resource,
    namespace: str,
    selector: str,
    keep: Callable[[Object], Kept | None],
    tell: Callable[[dict[str, Kept]], None],
    stopped: threading.Event,
) -> None:
    """Tells all objects of a kind now, and again whenever one of them changes, until it is to stop.

    ``keep``: what to keep of an object, whether it is one that matters; told by its name.
    """
    path, query = kube.list_path(kind, namespace), {"labelSelector": selector} if selector else {}
    delay = _FIRST_DELAY
    objects: dict[str, Kept] | None = None
    version = ""
    while not stopped.is_set():
        try:
            if objects is None:
                objects, version = _listed(cluster, path, query, keep)
                tell(dict(objects))
            since = {"resourceVersion": version, "timeoutSeconds": WATCH_SECONDS}
            with kube.watch(cluster, path, {**query, **since}, WATCH_SECONDS + kube.TIMEOUT) as events:
                for event in events:
                    version = event["object"]["metadata"]["resourceVersion"]
                    delay = _FIRST_DELAY
                    if _apply(objects, event, keep):
                        tell(dict(objects))
        except kube.ApiError as exc:
            if exc.status == _GONE:
                objects = None
            log("unanswered", kind=kind.kind, message=exc.message[:400])
            stopped.wait(delay)
            delay = min(2 * delay, _MAX_DELAY)


def _listed(
    cluster: kube.Cluster, path: str, query: Object, keep: Callable[[Object], Kept | None]
) -> tuple[dict[str, Kept], str]:
    found: dict[str, Kept] = {}
    more: Object = {}
    while True:
        answer = kube.call(cluster, "GET", path, {**query, "limit": kube.PAGE, **more}, retries=0)
        kept = {item["metadata"]["name"]: keep(item) for item in answer.get("items") or []}
        found |= {name: item for name, item in kept.items() if item is not None}
        if not answer["metadata"].get("continue"):
            return found, answer["metadata"]["resourceVersion"]
        more = {"continue": answer["metadata"]["continue"]}


def _apply(objects: dict[str, Kept], event: Object, keep: Callable[[Object], Kept | None]) -> bool:
    """Whether an event changed something."""
    if event["type"] == "BOOKMARK":
        return False
    name = event["object"]["metadata"]["name"]
    kept = None if event["type"] == "DELETED" else keep(event["object"])
    before = objects.pop(name, None)
    if kept is not None:
        objects[name] = kept
    return before != kept


def folder(config_map: Object) -> Folder | None:
    """What a ConfigMap has for proxies; None of one that is no configuration of a proxy."""
    files = config_map.get("data") or {}
    labels = config_map["metadata"].get("labels") or {}
    return Folder.of(labels.get(names.WORKLOAD_LABEL, ""), files) if CLUSTERS_FILE in files else None


def replicas(item: Object, suffix: str) -> Replicas:
    """Replicas of a slice, by DNS name. One that is about to end, and still serves, gets no new requests.

    Source: Kubernetes docs, "EndpointSlices", conditions; Envoy docs, "HealthStatus".
    """
    service = (item["metadata"].get("labels") or {}).get(_SERVICE_LABEL)
    hosts: list[dict[str, str]] = []
    for endpoint in item.get("endpoints") or []:
        health = _health(endpoint.get("conditions") or {})
        if health is not None and item["addressType"] == "IPv4":
            hosts += [{"address": address, **health} for address in endpoint["addresses"]]
    return {f"{service}.{suffix}": hosts}


def together(slices: Iterable[Replicas]) -> Replicas:
    """The replicas of all slices."""
    found: Replicas = {}
    for item in slices:
        for name, hosts in item.items():
            found[name] = [*found.get(name, []), *hosts]
    return found


def _health(conditions: Object) -> dict[str, str] | None:
    if conditions.get("ready") is not False:
        return {}
    return {"health": "DRAINING"} if conditions.get("terminating") and conditions.get("serving") else None
