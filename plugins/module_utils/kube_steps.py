# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits for steps one after the other: workloads that are rolled out, and other objects that have a condition."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import kube_wait
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import (
    ApiError,
    Cluster,
    Object,
    list_path,
    pages,
    resource,
    why,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import key
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_read import fetch
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_rollouts import ROLLED

VERSIONS = {
    "CustomResourceDefinition": "apiextensions.k8s.io/v1",
    "DaemonSet": "apps/v1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "Node": "v1",
    "Pod": "v1",
    "StatefulSet": "apps/v1",
}
"""API versions of kinds that need not be told."""
CONDITIONS = {"CustomResourceDefinition": "Established", "Node": "Ready", "Pod": "Ready"}
"""Conditions that need not be told."""

_INTERVAL = 1.0
_NAMED = 5


class StepError(Exception):
    """A step that failed, or took too long."""


def begin(seconds: float) -> Object:
    """The state of a wait, as plain data that another process can go on with."""
    return {"step": 0, "began": time.time(), "until": time.time() + seconds, "memory": {}, "lines": [], "done": []}


def wait(cluster: Cluster, workers: int, steps: Sequence[Object], state: Object, pause: float | None = None) -> bool:
    """Whether all steps are done; False with ``pause`` (seconds) at progress of what is waited for, or after that time
    without any.

    A step: ``kind``, ``api_version``, ``namespace``, ``names`` or ``selector``, ``condition``, ``at_least``. What can
    be told of it is in ``state["lines"]``. Raises StepError and ApiError.
    """
    began = time.time()
    while int(state["step"]) < len(steps):
        step = steps[state["step"]]
        before = state["lines"]
        # How a step begins is told at once.
        left = None if pause is None else max(pause - time.time() + began, 0) if before else 0.0
        finished = _look(cluster, workers, step, state, left)
        if finished:
            state.update(step=state["step"] + 1, memory={}, done=[*state["done"], *state["lines"]], lines=[])
            # What was done already is told with what comes next: to come back costs a second.
            if pause is not None and before:
                return int(state["step"]) == len(steps)
            continue
        if time.time() >= state["until"]:
            raise StepError(f"{_late(state)}:\n" + "\n".join(state["lines"]))
        if pause is not None and (state["lines"] != before or time.time() - began >= pause):
            return False
        time.sleep(_INTERVAL)
    return True


def _late(state: Object) -> str:
    return f"not finished after {time.time() - state['began']:.0f} s"


def _look(cluster: Cluster, workers: int, step: Object, state: Object, pause: float | None) -> bool:
    """One look at a step; whether it is done. An API server that is away for a while is waited for."""
    try:
        objects = _objects(cluster, workers, step)
        missing = _missing(step, objects)
        if missing:
            state["lines"] = [missing]
            return False
        if (_version(step).rpartition("/")[0], step["kind"]) in ROLLED:
            return _rolled(cluster, workers, objects, state, pause)
    except ApiError as exc:
        if exc.status != 0:
            raise
        state["lines"] = [why(exc)]
        return False
    line, finished = judged(step, objects)
    state["lines"] = [line]
    return finished


def _rolled(cluster: Cluster, workers: int, objects: list[Object], state: Object, pause: float | None) -> bool:
    watch = kube_wait.Watch(cluster, workers, state["until"], state["memory"])
    try:
        view = kube_wait.wait(watch, objects, pause)
    except kube_wait.RolloutError as exc:
        raise StepError(f"{_late(state)}:\n{exc}" if time.time() >= state["until"] else str(exc)) from exc
    state["lines"] = [found.line for found in view.states]
    return view.finished


def _version(step: Object) -> str:
    return str(step.get("api_version") or VERSIONS.get(step["kind"], "v1"))


def _objects(cluster: Cluster, workers: int, step: Object) -> list[Object]:
    """The objects of a step that are there."""
    version, kind, namespace = _version(step), step["kind"], step.get("namespace")
    if step.get("names"):
        wanted: list[Object] = [
            {
                "apiVersion": version,
                "kind": kind,
                "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            }
            for name in step["names"]
        ]
        found, errors = fetch(cluster, workers, wanted)
        if errors:
            raise errors[0]
        # What fetch has asked for by one request has all others of the kind, too.
        return [found[key(obj)] for obj in wanted if key(obj) in found]
    query = {"labelSelector": step["selector"]} if step.get("selector") else None
    return list(pages(cluster, list_path(resource(cluster, version, kind), namespace), query))


def _missing(step: Object, objects: list[Object]) -> str:
    """What is not there yet, in words."""
    there = {obj["metadata"]["name"] for obj in objects}
    absent = [name for name in step.get("names") or [] if name not in there]
    if absent:
        return f"{_title(step)}: {_some(absent)} not there yet"
    wanted = step.get("at_least", 1)
    if len(objects) < wanted:
        about = f" with {step['selector']}" if step.get("selector") else ""
        return f"{_title(step)}: {len(objects)} of {wanted}{about} there"
    return ""


def judged(step: Object, objects: list[Object]) -> tuple[str, bool]:
    """How many objects have the condition, in words with what the first of the others say; and whether all have."""
    wanted = step.get("condition") or CONDITIONS.get(step["kind"], "Ready")
    conditions = {obj["metadata"]["name"]: _condition(obj, wanted) for obj in objects}
    waiting = {name: found for name, found in sorted(conditions.items()) if found.get("status") != "True"}
    line = f"{_title(step)}: {len(objects) - len(waiting)} of {len(objects)} {wanted}"
    reasons = [f"{name} ({_said(found)})" if _said(found) else name for name, found in waiting.items()]
    return (f"{line}, not {_some(reasons)}" if reasons else line), not waiting


def _condition(obj: Object, kind: str) -> Object:
    found: list[Object] = (obj.get("status") or {}).get("conditions") or []
    return next((entry for entry in found if entry["type"] == kind), {})


def _said(condition: Object) -> str:
    return " ".join(str(condition.get("message") or condition.get("reason") or "").split())[:300]


def _title(step: Object) -> str:
    kind = f"{step['kind']}s"
    return f"{kind} of {step['namespace']}" if step.get("namespace") else kind


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"
