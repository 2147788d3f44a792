# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mesh's cluster says: the configurations of its proxies, and where the replicas of its services are.

Each kind is followed by a thread of its own, for the client waits where it reads. While the API server does not answer,
what it said last stays. Source: Kubernetes docs, "Kubernetes API Concepts", efficient detection of changes.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, names
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Replicas
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE

from control_plane.logs import log

Object = dict[str, Any]
Objects = dict[str, Object]
"""By name."""

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
    tell: Callable[[Objects], None],
    stopped: threading.Event,
) -> None:
    """Tells all objects of a kind now, and again whenever one of them changes, until it is to stop."""
    path, query = kube.list_path(kind, namespace), {"labelSelector": selector} if selector else {}
    delay = _FIRST_DELAY
    objects: Objects | None = None
    version = ""
    while not stopped.is_set():
        try:
            if objects is None:
                objects, version = _listed(cluster, path, query)
                tell(dict(objects))
            since = {"resourceVersion": version, "timeoutSeconds": WATCH_SECONDS}
            with kube.watch(cluster, path, {**query, **since}, WATCH_SECONDS + kube.TIMEOUT) as events:
                for event in events:
                    version = event["object"]["metadata"]["resourceVersion"]
                    delay = _FIRST_DELAY
                    if _apply(objects, event):
                        tell(dict(objects))
        except kube.ApiError as exc:
            if exc.status == _GONE:
                objects = None
            log("unanswered", kind=kind.kind, message=exc.message[:400])
            stopped.wait(delay)
            delay = min(2 * delay, _MAX_DELAY)


def _listed(cluster: kube.Cluster, path: str, query: Object) -> tuple[Objects, str]:
    found: Objects = {}
    more: Object = {}
    while True:
        answer = kube.call(cluster, "GET", path, {**query, "limit": kube.PAGE, **more}, retries=0)
        found |= {item["metadata"]["name"]: item for item in answer.get("items") or []}
        if not answer["metadata"].get("continue"):
            return found, answer["metadata"]["resourceVersion"]
        more = {"continue": answer["metadata"]["continue"]}


def _apply(objects: Objects, event: Object) -> bool:
    """Whether an event changed something."""
    if event["type"] == "BOOKMARK":
        return False
    name = event["object"]["metadata"]["name"]
    if event["type"] == "DELETED":
        return objects.pop(name, None) is not None
    objects[name] = event["object"]
    return True


def folders(config_maps: Iterable[Object]) -> dict[str, tuple[str, dict[str, str]]]:
    """``{ConfigMap: (workload, files)}`` of those that are configurations of proxies."""
    return {
        item["metadata"]["name"]: (item["metadata"]["labels"].get(names.WORKLOAD_LABEL, ""), item["data"])
        for item in config_maps
        if CLUSTERS_FILE in (item.get("data") or {})
    }


def replicas(slices: Iterable[Object], suffix: str) -> Replicas:
    """Replicas by DNS name. One that is about to end, and still serves, gets no new requests.

    Source: Kubernetes docs, "EndpointSlices", conditions; Envoy docs, "HealthStatus".
    """
    found: Replicas = {}
    for item in slices:
        service = (item["metadata"].get("labels") or {}).get(_SERVICE_LABEL)
        hosts = found.setdefault(f"{service}.{suffix}", [])
        for endpoint in item.get("endpoints") or []:
            health = _health(endpoint.get("conditions") or {})
            if health is not None and item["addressType"] == "IPv4":
                hosts += [{"address": address, **health} for address in endpoint["addresses"]]
    return found


def _health(conditions: Object) -> dict[str, str] | None:
    if conditions.get("ready") is not False:
        return {}
    return {"health": "DRAINING"} if conditions.get("terminating") and conditions.get("serving") else None
