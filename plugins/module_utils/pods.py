# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a pod says of itself, as the API server tells it. Source: Kubernetes API, "Pod"."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def config_maps(pod: Object) -> list[str]:
    """Names of those that the pod has as folders."""
    return [item["configMap"]["name"] for item in pod["spec"].get("volumes") or [] if item.get("configMap")]


def container_status(pod: Object, container: str) -> Object:
    status = pod.get("status", {})
    known = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return next((item for item in known if item["name"] == container), {})


def leaves(pod: Object) -> bool:
    """Whether it was told to end, or has ended."""
    return bool(pod["metadata"].get("deletionTimestamp")) or pod["status"].get("phase") in ("Succeeded", "Failed")


def runs(pod: Object, container: str) -> bool:
    """Whether a container of a pod that stays is up. A sidecar is before the pod's phase is Running."""
    return not leaves(pod) and "running" in (container_status(pod, container).get("state") or {})


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return not leaves(pod) and any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def restarts(pod: Object) -> int:
    status = pod.get("status", {})
    known = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    return sum(item.get("restartCount", 0) for item in known)


def trouble(pod: Object) -> str:
    """Why a pod is not ready, in few words; empty when it is, or goes."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status", {})
    known = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    for item in known:
        waiting = (item.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{item['name']}: {waiting['reason']}"
    for item in status.get("conditions") or []:
        if item["type"] == "PodScheduled" and item["status"] == "False":
            return f"{item.get('reason', 'Unschedulable')}: {item.get('message', '')}".rstrip(": ")
    return "" if is_ready(pod) else str(status.get("reason") or "not ready")
