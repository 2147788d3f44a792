# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Envoys of a mesh in its pods, read through the API server: what they run, what they log."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, metrics, names

Object = dict[str, Any]

CONFIG_MAPS = kube.Resource("v1", "ConfigMap", "configmaps", True)
DEPLOYMENTS = kube.Resource("apps/v1", "Deployment", "deployments", True)
PODS = kube.Resource("v1", "Pod", "pods", True)
SECRETS = kube.Resource("v1", "Secret", "secrets", True)
SERVICES = kube.Resource("v1", "Service", "services", True)

ANSWER_SECONDS = 5.0
_SILENT = ("error trying to reach service", "timed out")
"""What the API server says of a pod that refuses its connection, and what is said of one that takes it and is mute."""
_REJECTED = re.compile(r"rejected: (.*?)(?=\n\[|\n\{|\n\n|\Z)", re.DOTALL)
_MARK = re.compile(r"goo\.gle/debug\w+")
"""Protobuf puts it into what nobody is to parse."""
_LOG_LINES = 5000
_REASON = 400
"""Characters of a reason; Envoy's own words are at the end of a long one, after the refused resource."""


class SilentError(Exception):
    """An Envoy does not answer, though the API server does."""


def of_mesh(cluster: kube.Cluster, kind: kube.Resource, namespace: str, mesh: str) -> list[Object]:
    """Objects of a mesh, of one kind. Raises ApiError."""
    return _labelled(cluster, kind, namespace, names.MESH_LABEL, mesh)


def workload_pods(cluster: kube.Cluster, namespace: str, workload: str) -> list[Object]:
    """Those of a service or front proxy. Raises ApiError."""
    ((label, value),) = names.selector(workload).items()
    return _labelled(cluster, PODS, namespace, label, value)


def _labelled(cluster: kube.Cluster, kind: kube.Resource, namespace: str, label: str, value: str) -> list[Object]:
    return list(kube.pages(cluster, kube.list_path(kind, namespace), {"labelSelector": f"{label}={value}"}))


def metrics_page(cluster: kube.Cluster, pod: Object, ports: list[int], page: str) -> metrics.Stats:
    """What an Envoy answers on the first of these ports that answers. Raises SilentError, ApiError."""
    silent = "has no metrics listener"
    for port in ports:
        path = f"{pod_path(pod, f':{port}')}/proxy{page}"
        try:
            return metrics.stats(kube.text(cluster, "GET", path, timeout=ANSWER_SECONDS, retries=0))
        except kube.ApiError as exc:
            if not any(words in exc.message for words in _SILENT):
                raise
            silent = f"does not answer on port {port}: {exc.message.removeprefix(_SILENT[0]).lstrip(': ')}"
    raise SilentError(silent)


def log(cluster: kube.Cluster, pod: Object, seconds: float) -> str:
    """What an Envoy wrote lately. Raises ApiError."""
    query = {"container": names.ENVOY_CONTAINER, "sinceSeconds": max(1, round(seconds)), "tailLines": _LOG_LINES}
    return kube.text(cluster, "GET", f"{pod_path(pod)}/log", query)


def reasons(cluster: kube.Cluster, pod: Object, seconds: float) -> list[str]:
    """Why an Envoy refused configuration lately, as its log says."""
    try:
        return rejections(log(cluster, pod, seconds))
    except kube.ApiError as exc:
        return [f"its log cannot be read: {kube.why(exc)}"]


def rejections(text: str) -> list[str]:
    """The reasons that an Envoy's log tells, each once."""
    found = [" ".join(_MARK.sub("", reason).split()) for reason in _REJECTED.findall(text)]
    return list(dict.fromkeys(f"… {reason[-_REASON:]}" if len(reason) > _REASON else reason for reason in found))


def touch(cluster: kube.Cluster, pod: Object, annotation: str, value: str) -> None:
    """Annotate a pod, upon which its kubelet brings the pod's ConfigMaps up to date. Raises ApiError."""
    body = {"metadata": {"annotations": {annotation: value}}}
    query = {"fieldManager": names.MANAGER}
    kube.call(cluster, "PATCH", pod_path(pod), query, body, kube.MERGE)


def pod_path(pod: Object, suffix: str = "") -> str:
    metadata = pod["metadata"]
    return object_path(PODS, metadata["namespace"], metadata["name"] + suffix)


def object_path(kind: kube.Resource, namespace: str, name: str) -> str:
    return f"{kube.list_path(kind, namespace)}/{quote(name, safe=':')}"
