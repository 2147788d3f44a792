# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mesh's control plane says of the proxies that are connected to it.

An entry is what its page ``/status`` has of a proxy: ``content`` (hash of the files that it is sent), ``synced``
(whether it has all of them), and ``types`` with what it ``refused`` of each kind, and its ``nack``.
"""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import admin, kube, kube_proxies, names, pods
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash

Object = dict[str, Any]

STATUS_PORT = "status"
"""Name of the port, in its pods."""
_PAGE = "/status"


Said = tuple[dict[str, Object], str]
"""The entries of all proxies, by replica, and what is wrong with the newest configuration, if something is."""


def connected(cluster: kube.Cluster, replicas: list[Object]) -> Said:
    """What the control plane's pods say; one that does not answer says nothing.

    Raises ApiError for a right that is missing.
    """
    found: dict[str, Object] = {}
    problem = ""
    for pod in replicas:
        port = _port(pod)
        if not port or not pods.is_ready(pod):
            continue
        path = f"{kube_proxies.pod_path(pod, f':{port}')}/proxy{_PAGE}"
        try:
            page = kube.text(cluster, "GET", path, timeout=kube_proxies.ANSWER_SECONDS, retries=0)
        except kube.ApiError as exc:
            if exc.status == 403:
                raise
            continue
        entries, wrong = _said(page)
        found, problem = {**found, **entries}, wrong or problem
    return found, problem


def connected_here(address: str) -> Said:
    """What a control plane on this machine says; nothing while nobody answers at ``address:port``."""
    try:
        return _said(admin.request(address, _PAGE))
    except admin.UnreachableError:
        return {}, ""


def _said(page: str) -> Said:
    data = json.loads(page)
    return {entry["node"]: entry for entry in data["connected"]}, data["configuration"]["error"] or ""


def published(proxy: Object, files: dict[str, str]) -> Object:
    """What a control plane on this machine is told of a proxy (as ``mesh_files`` lists it) and its folder's files."""
    return {"workload": proxy["workload"], "folder": proxy["folder"], "content": content_hash(files)}


def is_replica(pod: Object) -> bool:
    return bool((pod["metadata"].get("labels") or {}).get(names.COMPONENT_LABEL) == names.CONTROL_PLANE)


def _port(pod: Object) -> int | None:
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
    return next((port["containerPort"] for port in ports if port.get("name") == STATUS_PORT), None)


def late(entry: Object, files: dict[str, str]) -> list[str]:
    """What a proxy does not have yet of what these files say; empty when it has all."""
    if entry["content"] != content_hash(files):
        return ["what the control plane sends"]
    return [] if entry["synced"] else sorted(refused(entry)) or ["what the control plane sent"]


def refused(entry: Object) -> dict[str, str]:
    """What a proxy does not take of what it is sent, as ``{kind name: reason}``."""
    return {
        f"{kind} {name}": str((item.get("nack") or {}).get("message", ""))
        for kind, item in entry["types"].items()
        for name in item["refused"]
    }
