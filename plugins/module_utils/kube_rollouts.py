# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far a workload's rollout is, and what is wrong with its pods: judged from their objects alone.

Source: Kubernetes docs, "Deployment status", and the rules of ``kubectl rollout status``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import Object
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import group_kind, title

ROLLED = {("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("batch", "Job")}
"""Kinds that are waited for."""

PATIENCE = 30.0
"""Seconds after which a container that cannot start counts as one that never will."""
RESTARTS = 3
"""So many restarts, one of them seen, and a container that crashes will go on crashing."""

_STARTING = {"ContainerCreating", "PodInitializing"}
_CRASHING = "CrashLoopBackOff"


@dataclass(frozen=True)
class Rollout:
    """``failed`` says why it will not finish."""

    title: str
    wanted: int
    updated: int
    available: int
    done: bool
    text: str
    failed: str = ""
    former: int = 0

    @property
    def line(self) -> str:
        return f"{self.title}: {self.text}"


@dataclass(frozen=True)
class Trouble:
    """Why a pod is not ready. ``container`` is empty where it is not about one, ``pod`` where there is none."""

    pod: str
    uid: str
    container: str
    text: str
    crashing: bool = False
    restarts: int = 0
    stuck: bool = False
    running: bool = False

    @property
    def place(self) -> str:
        """Tells a container of a pod from all others."""
        return f"{self.uid}/{self.container}"

    @property
    def line(self) -> str:
        where = [f"pod {self.pod}"] if self.pod else []
        where += [f"container {self.container}"] if self.container else []
        return ": ".join(filter(None, [", ".join(where), self.text]))


def rollout(obj: Object) -> Rollout:
    """The state of a workload, as its controller last wrote it."""
    status: Object = obj.get("status") or {}
    seen = status.get("observedGeneration", 0) >= obj["metadata"].get("generation", 0)
    found = _JUDGES[group_kind(obj)[1]](title(obj), obj["spec"], status)
    if seen or group_kind(obj)[1] == "Job":
        return found
    return Rollout(found.title, found.wanted, 0, found.available, False, "not looked at by its controller yet")


def is_rolled_out(obj: Object) -> bool:
    """Whether an object runs in its newest version, or is nothing that runs."""
    return group_kind(obj) not in ROLLED or rollout(obj).done


def _deployment(name: str, spec: Object, status: Object) -> Rollout:
    wanted, updated, available = _counts(spec, status, "updatedReplicas", "availableReplicas")
    former = max(status.get("replicas", 0) - updated, 0)
    text = _text(wanted, updated, available, former)
    if spec.get("paused"):
        return Rollout(name, wanted, updated, available, True, f"{text} (paused)")
    done = updated >= wanted and not former and available >= updated
    progress = _condition(status, "Progressing")
    failed = progress.get("message", "") if progress.get("reason") == "ProgressDeadlineExceeded" and not done else ""
    return Rollout(name, wanted, updated, available, done, text, failed, former)


def _stateful_set(name: str, spec: Object, status: Object) -> Rollout:
    wanted, updated, available = _counts(spec, status, "updatedReplicas", "availableReplicas")
    strategy: Object = spec.get("updateStrategy") or {}
    ready = status.get("readyReplicas", 0)
    partition = (strategy.get("rollingUpdate") or {}).get("partition") or 0
    on_delete = strategy.get("type") == "OnDelete"
    whole = status.get("updateRevision") == status.get("currentRevision")
    # With all pods updated the controller moves currentRevision on, and updatedReplicas is the number of all.
    renewed = on_delete or whole or updated >= max(wanted - partition, 0)
    former = max(status.get("replicas", 0) - updated, 0)
    return Rollout(
        name,
        wanted,
        updated,
        available,
        renewed and ready >= wanted and (available >= wanted),
        _text(wanted, updated, available, 0),
        former=former,
    )


def _daemon_set(name: str, spec: Object, status: Object) -> Rollout:
    wanted, updated = status.get("desiredNumberScheduled", 0), status.get("updatedNumberScheduled", 0)
    available = status.get("numberAvailable", 0)
    on_delete = (spec.get("updateStrategy") or {}).get("type") == "OnDelete"
    done = (on_delete or updated >= wanted) and available >= wanted
    text = _text(wanted, updated, available, 0, "pods")
    return Rollout(name, wanted, updated, available, done, text, former=max(wanted - updated, 0))


def _job(name: str, spec: Object, status: Object) -> Rollout:
    wanted = spec.get("completions") or 1
    succeeded = status.get("succeeded", 0)
    done = bool(_condition(status, "Complete")) or bool(spec.get("suspend"))
    failed = _condition(status, "Failed")
    text = f"{succeeded} of {wanted} pods succeeded, {status.get('active', 0)} active"
    return Rollout(name, wanted, succeeded, succeeded, done, text, (failed and _said(failed)) or "")


_JUDGES = {"Deployment": _deployment, "StatefulSet": _stateful_set, "DaemonSet": _daemon_set, "Job": _job}


def _counts(spec: Object, status: Object, *names: str) -> tuple[int, int, int]:
    replicas = spec.get("replicas")
    updated, available = (status.get(name) or 0 for name in names)
    return (1 if replicas is None else replicas), updated, available


def _text(wanted: int, updated: int, available: int, former: int, noun: str = "") -> str:
    noun = noun or ("replica" if wanted == 1 else "replicas")
    leaving = f", {former} of before still there" if former and updated >= wanted else ""
    return f"{updated} of {wanted} {noun} updated, {available} available{leaving}"


def _condition(status: Object, kind: str) -> Object:
    """A condition, empty unless it is True or tells a reason; for all kinds but Progressing it must be True."""
    found: Iterable[Object] = status.get("conditions") or []
    match = next((entry for entry in found if entry["type"] == kind), {})
    return match if match.get("status") == "True" or kind == "Progressing" else {}


def _said(found: Object) -> str:
    return ": ".join(filter(None, (found.get("reason"), " ".join((found.get("message") or "").split()))))


def ready_when_started(workload: Object) -> bool:
    """Whether pods count as available the moment a container starts, even if it ends in the next."""
    spec = workload["spec"]
    containers = spec["template"]["spec"].get("containers") or []
    return not spec.get("minReadySeconds") and any("readinessProbe" not in container for container in containers)


def available_since(workload: Object) -> float:
    """The time (seconds since 1970) when a Deployment became available, as it does again and again if it crashes.

    0 where that is not told.
    """
    told = _condition(workload.get("status") or {}, "Available").get("lastTransitionTime")
    return datetime.fromisoformat(told.replace("Z", "+00:00")).timestamp() if told else 0.0


def refused_pods(obj: Object) -> list[Trouble]:
    """Why a Deployment's new pods are refused at the door: quota, Pod Security."""
    said = _said(_condition(obj.get("status") or {}, "ReplicaFailure"))
    return [Trouble("", obj["metadata"]["uid"], "", f"pods are refused: {said}", stuck=True)] if said else []


def current_pods(workload: Object, sets: Iterable[Object], pods: Iterable[Object]) -> list[Object]:
    """Pods of a workload's newest revision; those of before run on and say nothing about it."""
    kind, uid = group_kind(workload)[1], workload["metadata"]["uid"]
    if kind == "Deployment":
        revision = _revision(workload)
        owned = (found for found in sets if _owner(found) == uid and _revision(found) == revision)
        owners = {found["metadata"]["uid"] for found in owned}
        return [pod for pod in pods if _owner(pod) in owners]
    own = [pod for pod in pods if _owner(pod) == uid]
    update = (workload.get("status") or {}).get("updateRevision")
    if kind != "StatefulSet" or not update:
        return own
    return [pod for pod in own if (pod["metadata"].get("labels") or {}).get("controller-revision-hash") == update]


def _owner(obj: Object) -> str | None:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def _revision(obj: Object) -> str | None:
    found: str | None = (obj["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision")
    return found


def troubles(pod: Object) -> Iterator[Trouble]:
    """What keeps a pod from being ready."""
    status: Object = pod.get("status") or {}
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    if pod["metadata"].get("deletionTimestamp") or status.get("phase") == "Succeeded":
        return
    scheduled = _find(status, "PodScheduled")
    if scheduled.get("status") == "False":
        yield Trouble(name, uid, "", f"not on a node: {_said(scheduled)}")
        return
    if status.get("phase") == "Failed" and status.get("reason"):
        yield Trouble(name, uid, "", _said(status))
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        yield from _container_troubles(name, uid, container)


def _find(status: Object, kind: str) -> Object:
    return next((entry for entry in status.get("conditions") or [] if entry["type"] == kind), {})


def _container_troubles(pod: str, uid: str, container: Object) -> Iterator[Trouble]:
    state: Object = container.get("state") or {}
    last: Object = (container.get("lastState") or {}).get("terminated") or {}
    restarts = container.get("restartCount", 0)
    name = container["name"]
    if "waiting" in state:
        reason = state["waiting"].get("reason", "")
        if reason == _CRASHING:
            yield Trouble(pod, uid, name, _crash(last, restarts), True, restarts)
        elif reason not in _STARTING:
            yield Trouble(pod, uid, name, _said(state["waiting"]), restarts=restarts, stuck=True)
    elif "terminated" in state:
        if state["terminated"].get("exitCode"):
            yield Trouble(pod, uid, name, _crash(state["terminated"], restarts), True, restarts)
    elif not container.get("ready") and "running" in state:
        if last and restarts:
            yield Trouble(pod, uid, name, _crash(last, restarts), True, restarts)
        else:
            yield Trouble(pod, uid, name, "runs, but is not ready", running=True)


def _crash(ended: Object, restarts: int) -> str:
    reason = ended.get("reason", "")
    code = f"exit code {ended['exitCode']}" if "exitCode" in ended else "ended"
    said = " ".join((ended.get("message") or "").split())
    times = f", restarted {restarts} time{'' if restarts == 1 else 's'}" if restarts else ""
    note = f" ({reason})" if reason and reason != "Error" else ""
    return f"crashes: {code}{note}{times}{': ' + said if said else ''}"


def remember(memory: Object, found: list[Trouble], now: float) -> Object:
    """What a later look needs of this one: since when containers are stuck, and how often they had restarted at first.

    ``memory`` is what the look before returned, and empty at the first.
    """
    stuck = memory.get("stuck", {})
    restarts = {trouble.place: trouble.restarts for trouble in found if trouble.crashing}
    return {
        "stuck": {trouble.place: stuck.get(trouble.place, now) for trouble in found if trouble.stuck},
        "restarts": memory.get("restarts", restarts),
    }


def hopeless(memory: Object, found: list[Trouble], now: float) -> list[Trouble]:
    """Containers that will not start whatever time they get."""
    return [trouble for trouble in found if _hopeless(memory, trouble, now)]


def _hopeless(memory: Object, trouble: Trouble, now: float) -> bool:
    if trouble.crashing:
        seen: dict[str, Any] = memory.get("restarts", {})
        return trouble.restarts >= RESTARTS and trouble.restarts > seen.get(trouble.place, 0)
    return trouble.stuck and now - memory.get("stuck", {}).get(trouble.place, now) >= PATIENCE
