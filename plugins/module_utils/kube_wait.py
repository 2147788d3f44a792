# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waits until workloads are rolled out; says how far they are, and when one fails, what is wrong with its pods."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import ApiError, Cluster, Object, pages, text, why
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import group_kind, key, title
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_read import each, fetch
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_rollouts import (
    Rollout,
    Trouble,
    available_since,
    current_pods,
    hopeless,
    ready_when_started,
    refused_pods,
    remember,
    rollout,
    troubles,
)

LOG_LINES = 10

_INTERVAL = 1.0
_PODS_INTERVAL = 4.0
_STEADY = 5.0
_TROUBLES_SHOWN = 3
_WORKLOADS_SHOWN = 20
_EVENTS_SHOWN = 3


@dataclass
class Watch:
    """A wait that goes on. ``memory`` is plain data, so that another process can go on with it."""

    cluster: Cluster
    workers: int
    until: float
    memory: Object = field(default_factory=dict)


@dataclass(frozen=True)
class View:
    """The workloads at one instant, in the order asked for. ``steady``: what is finished has been for a while."""

    objects: list[Object]
    states: list[Rollout]
    steady: bool = True

    @property
    def unfinished(self) -> list[tuple[Object, Rollout]]:
        pairs = zip(self.objects, self.states, strict=True)
        return [(obj, state) for obj, state in pairs if not state.done]

    @property
    def finished(self) -> bool:
        return self.steady and not self.unfinished


class RolloutError(Exception):
    """Rollouts that failed or took too long."""

    def __init__(self, problems: list[str], view: View) -> None:
        super().__init__("\n".join(problems))
        self.view = view


def look(watch: Watch, workloads: Sequence[Object]) -> View:
    """Raises ApiError; a workload that is gone is one too."""
    found, errors = fetch(watch.cluster, watch.workers, workloads)
    if errors:
        raise errors[0]
    for workload in workloads:
        if key(workload) not in found:
            raise ApiError(404, "NotFound", f"{title(workload)} was removed while its rollout was waited for")
    objects = [found[key(workload)] for workload in workloads]
    return View(objects, [rollout(obj) for obj in objects])


def wait(watch: Watch, workloads: Sequence[Object], pause: float | None = None) -> View:
    """Returns when all are rolled out, or with ``pause`` (seconds) at progress, or after that time without any.

    Raises RolloutError and ApiError. An API server that is away for a while is waited for.
    """
    memory, began = watch.memory, time.time()
    memory.setdefault("began", began)
    while True:
        try:
            view = look(watch, workloads)
        except ApiError as exc:
            if exc.status != 0 or time.time() > watch.until:
                raise
            time.sleep(_INTERVAL)
            continue
        now = time.time()
        view = replace(view, steady=_is_steady(memory, view, now))
        _judge(watch, view, now)
        lines = [state.line for state in view.states]
        news = lines != memory.get("lines", lines)
        memory["lines"] = lines
        if view.finished or (pause is not None and (news or now - began >= pause)):
            return view
        time.sleep(_INTERVAL)


def _is_steady(memory: Object, view: View, now: float) -> bool:
    """Whether rollouts that finished lately still are, where pods count as available as soon as they start."""
    awaited = set(memory.get("awaited", [])) | {state.title for _obj, state in view.unfinished}
    memory["awaited"] = sorted(awaited)
    if view.unfinished:
        memory.pop("finished", None)
        return False
    memory.setdefault("finished", now)
    doubtful = any(
        ready_when_started(obj) and (title(obj) in awaited or now - available_since(obj) < _STEADY)
        for obj in view.objects
    )
    return not doubtful or now - memory["finished"] >= _STEADY


def _judge(watch: Watch, view: View, now: float) -> None:
    """Raise RolloutError if a rollout has failed, or no time is left."""
    memory = watch.memory
    failed, late = _expired(memory, view), now >= watch.until
    if not view.unfinished or not (failed or late or now - memory.get("looked", 0.0) >= _PODS_INTERVAL):
        return
    memory["looked"] = now
    found = _diagnoses(watch, view)
    memory["seen"] = remember(memory.get("seen", {}), [trouble for entry in found for trouble in entry[2]], now)
    for _obj, state, own in found:
        if hopeless(memory["seen"], own, now):
            failed.setdefault(state.title, "will not finish")
    if failed or late:
        seconds = f"is not finished after {now - memory['began']:.0f} s"
        problems = [
            line
            for obj, state, own in found
            # What is wrong elsewhere is better told now than by the next run.
            if late or state.title in failed or any(trouble.crashing or trouble.stuck for trouble in own)
            for line in [f"{state.line}; the rollout {failed.get(state.title, seconds)}", *_report(watch, obj, own)]
        ]
        raise RolloutError(problems, view)


def _expired(memory: Object, view: View) -> dict[str, str]:
    """Rollouts that their controllers gave up. A deadline that had passed before this wait says nothing about it."""
    passed = {state.title: state.failed for state in view.states if state.failed}
    jobs = {title(obj) for obj in view.objects if group_kind(obj)[1] == "Job"}
    old = memory.setdefault("passed", sorted(passed.keys() - jobs))
    return {name: f"has failed: {text}" for name, text in passed.items() if name not in old}


def _diagnoses(watch: Watch, view: View) -> list[tuple[Object, Rollout, list[Trouble]]]:
    """What is wrong with the pods of the first of the workloads that are not finished."""
    few = view.unfinished[:_WORKLOADS_SHOWN]
    answers = each(watch.workers, few, lambda pair: _diagnose(watch.cluster, pair[0]))
    return [(obj, state, _known(obj, answer)) for (obj, state), answer in zip(few, answers, strict=True)]


def _known(obj: Object, answer: list[Trouble] | ApiError | None) -> list[Trouble]:
    if isinstance(answer, list):
        return answer
    reason = why(answer) if answer else "the API server does not answer"
    return [Trouble("", obj["metadata"]["uid"], "", f"its pods cannot be looked at: {reason}")]


def _diagnose(cluster: Cluster, obj: Object) -> list[Trouble]:
    namespace = quote(obj["metadata"]["namespace"], safe="")
    query = {"labelSelector": _selector(obj["spec"].get("selector") or {})}
    sets = []
    if group_kind(obj)[1] == "Deployment":
        sets = list(pages(cluster, f"/apis/apps/v1/namespaces/{namespace}/replicasets", query))
    pods = current_pods(obj, sets, pages(cluster, f"/api/v1/namespaces/{namespace}/pods", query))
    return [*refused_pods(obj), *(trouble for pod in pods for trouble in troubles(pod))]


def _selector(selector: Object) -> str:
    """A label selector as text. Source: Kubernetes docs, "Labels and selectors"."""
    labels = [f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items()]
    return ",".join([*labels, *map(_expression, selector.get("matchExpressions") or [])])


def _expression(entry: Object) -> str:
    name, operator = entry["key"], entry["operator"]
    values = f"({','.join(entry.get('values') or [])})"
    texts = {"In": f"{name} in {values}", "NotIn": f"{name} notin {values}", "Exists": f"{name}"}
    return texts.get(operator, f"!{name}")


def _report(watch: Watch, obj: Object, found: list[Trouble]) -> Iterator[str]:
    """Lines below a failed rollout: its first troubles, with events and the end of the logs."""
    # Without a pod there is only what the controller says of the workload.
    found = found or [Trouble("", obj["metadata"]["uid"], "", "no pod tells why")]
    for trouble in found[:_TROUBLES_SHOWN]:
        yield f"  {trouble.line}"
        try:
            yield from (f"    {line}" for line in _particulars(watch.cluster, obj["metadata"]["namespace"], trouble))
        except ApiError as exc:
            yield f"    no more is known: {why(exc)}"
    if len(found) > _TROUBLES_SHOWN:
        yield f"  and {len(found) - _TROUBLES_SHOWN} more"
    former = rollout(obj).former
    if former:
        yield f"  {former} of the pods of before {'is' if former == 1 else 'are'} still there"


def _particulars(cluster: Cluster, namespace: str, trouble: Trouble) -> Iterator[str]:
    if trouble.crashing:
        yield from (f"log: {line}" for line in _log(cluster, namespace, trouble))
    else:
        fresh = [message for message in _warnings(cluster, namespace, trouble.uid) if message not in trouble.text]
        yield from (f"event: {message}" for message in fresh[-_EVENTS_SHOWN:])
    if trouble.running:
        yield from (f"log: {line}" for line in _log(cluster, namespace, trouble))


def _warnings(cluster: Cluster, namespace: str, uid: str) -> list[str]:
    """What went wrong with an object, each once, the latest last."""
    query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning"}
    events = list(pages(cluster, f"/api/v1/namespaces/{quote(namespace, safe='')}/events", query))
    events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
    messages = (" ".join((event.get("message") or "").split()) for event in events)
    return [message for message in dict.fromkeys(messages) if message]


def _log(cluster: Cluster, namespace: str, trouble: Trouble) -> list[str]:
    """The last lines of the container that ended; where they are gone, those of its successor."""
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(trouble.pod, safe='')}/log"
    query = {"container": trouble.container, "tailLines": LOG_LINES}
    for previous in ({"previous": "true"}, {}):
        try:
            found = text(cluster, "GET", path, {**query, **previous}).splitlines()
        except ApiError as exc:
            if exc.status != 400:
                raise
        else:
            # The kubelet says so without an error.
            if found and not found[0].startswith("unable to retrieve container logs"):
                return found
    return []
