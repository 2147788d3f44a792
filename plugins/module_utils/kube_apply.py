# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries out a plan: phase by phase, each phase at once; what was done is known when something fails in between."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, kube_sets
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import ApiError, Cluster, Object
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_errors import lines, some
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import (
    DEFINITION,
    LAST_PHASE,
    essence,
    group_kind,
    phase,
    role_of,
    roles,
    title,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_plan import (
    CHANGED,
    CREATED,
    Item,
    Manner,
    Plan,
    attempt,
    remove,
    send,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_read import each, read

_ESTABLISHED_TIMEOUT = 30.0
_NAMED = 10


class ApplyError(Exception):
    """What could not be applied. ``done`` was."""

    def __init__(self, message: str, done: list[Item]) -> None:
        super().__init__(message)
        self.done = done


def apply(cluster: Cluster, manner: Manner, plan: Plan) -> None:
    """Apply what the plan changes, but its pruning. Raises ApplyError."""
    done: list[Item] = []
    first = [item for item in plan.items if phase(item.wanted) <= _DEFINITIONS]
    rest = [item for item in plan.items if phase(item.wanted) > _DEFINITIONS]
    _apply_phases(cluster, manner, first, done, _changes(plan.items))
    _await_kinds(cluster, [item for item in first if group_kind(item.wanted) == DEFINITION], done)
    new_roles = roles(item.wanted for item in rest if item.outcome == CREATED)
    untried = [item for item in [*rest, *([plan.parent] if plan.parent else [])] if not item.tried]
    problems = _attempt_untried(cluster, manner, [item for item in untried if role_of(item.wanted) not in new_roles])
    if problems:
        raise ApplyError(_told(problems, done, _changes(rest)), done)
    if plan.parent and plan.parent_meanwhile and _lacks(plan.parent, plan.parent_meanwhile):
        _apply_parent(cluster, manner, plan.parent_meanwhile, done, _changes(rest))
    _apply_phases(cluster, manner, rest, done, _changes(rest))


_DEFINITIONS = 1
"""The phase of CustomResourceDefinitions; after it every kind and namespace is there."""


def _changes(items: Sequence[Item]) -> list[Item]:
    return [item for item in items if item.outcome in (CREATED, CHANGED)]


def _apply_phases(cluster: Cluster, manner: Manner, items: list[Item], done: list[Item], planned: list[Item]) -> None:
    for number in range(LAST_PHASE + 1):
        now = _changes([item for item in items if phase(item.wanted) == number])
        # Bindings, whose roles were made a phase ago.
        problems = _attempt_untried(cluster, manner, [item for item in now if not item.tried])
        if problems:
            raise ApplyError(_told(problems, done, planned), done)
        answers = each(manner.workers, now, lambda item: send(cluster, manner, item.wanted))
        pairs = list(zip(now, answers, strict=True))
        done += [item for item, answer in pairs if isinstance(answer, dict)]
        failed = [(item.wanted, answer) for item, answer in pairs if isinstance(answer, ApiError)]
        if failed:
            raise ApplyError(_told(lines(failed), done, planned), done)


def _told(problems: Sequence[str], done: list[Item], planned: Sequence[Item]) -> str:
    """What failed, what is there nevertheless, and what is not."""
    made = {id(item) for item in done}
    left = [title(item.wanted) for item in planned if id(item) not in made]
    applied = [title(item.wanted) for item in done]
    told = ["Not everything could be applied:", *(f"  {line}" for line in problems)]
    told.append(f"Applied before that: {some(applied, _NAMED) or 'nothing'}.")
    told.append(f"Not applied, or without an answer: {some(left, _NAMED) or 'nothing'}.")
    told.append("What is applied stays; run it again when the cause is remedied, and the rest follows.")
    return "\n".join(told)


def _apply_parent(cluster: Cluster, manner: Manner, parent: Object, done: list[Item], planned: Sequence[Item]) -> None:
    try:
        send(cluster, manner, parent)
    except ApiError as exc:
        raise ApplyError(_told(lines([(parent, exc)]), done, planned), done) from exc


def _lacks(parent: Item, wanted: Object) -> bool:
    """Whether the live parent does not know all kinds and namespaces yet."""
    if parent.live is None:
        return True
    own, live = essence(wanted)["metadata"], essence(parent.live)["metadata"]
    return any(
        live.get(name, {}).get(word) != value for name in ("labels", "annotations") for word, value in own[name].items()
    )


def _attempt_untried(cluster: Cluster, manner: Manner, items: list[Item]) -> list[str]:
    try:
        return attempt(cluster, manner, items)
    except ApiError as exc:
        return [kube.why(exc)]


def _await_kinds(cluster: Cluster, items: list[Item], done: list[Item]) -> None:
    """Wait until the API server serves the kinds that were defined. Raises ApplyError."""
    until = time.time() + _ESTABLISHED_TIMEOUT
    waiting = _changes(items)
    while waiting:
        try:
            waiting = [item for item in waiting if not _serves(cluster, item.wanted)]
        except ApiError as exc:
            raise ApplyError(_told([kube.why(exc)], done, waiting), done) from exc
        if waiting and time.time() > until:
            names = some([title(item.wanted) for item in waiting], _NAMED)
            raise ApplyError(f"{names}: not served by the API server after {_ESTABLISHED_TIMEOUT:.0f} s", done)
        if waiting:
            time.sleep(0.2)


def _serves(cluster: Cluster, definition: Object) -> bool:
    live = read(cluster, definition) or {}
    conditions = (live.get("status") or {}).get("conditions") or []
    if not any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions):
        return False
    spec = live["spec"]
    for version in (entry["name"] for entry in spec["versions"] if entry.get("served")):
        kube.forget(cluster, f"{spec['group']}/{version}")
        try:
            kube.resource(cluster, f"{spec['group']}/{version}", spec["names"]["kind"])
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
    return True


def prune(cluster: Cluster, workers: int, objects: list[Object]) -> list[Object]:
    """Remove the objects, those that others need after those others; returns them. Raises ApplyError."""
    removed: list[Object] = []
    for rank in sorted({_rank(obj) for obj in objects}):
        now = [obj for obj in objects if _rank(obj) == rank]
        answers = each(workers, now, lambda obj: _removed(cluster, obj))
        pairs = list(zip(now, answers, strict=True))
        removed += [obj for obj, answer in pairs if isinstance(answer, dict)]
        failed = [(obj, answer) for obj, answer in pairs if isinstance(answer, ApiError)]
        if failed:
            told = ["Not everything could be pruned:", *(f"  {line}" for line in lines(failed))]
            told.append(f"Pruned before that: {some([title(obj) for obj in removed], _NAMED) or 'nothing'}.")
            raise ApplyError("\n".join([*told, "Everything else is applied; run it again to go on."]), [])
    return removed


def _rank(obj: Object) -> int:
    """The order of removal; a parent comes last, as it tells what there is to remove."""
    return LAST_PHASE + 1 if kube_sets.is_parent(obj) else LAST_PHASE - phase(obj)


def _removed(cluster: Cluster, obj: Object) -> Object:
    remove(cluster, obj)
    return obj


def final_parent(plan: Plan) -> Object | None:
    """What the set's parent becomes when all is pruned; None where it is that already."""
    parent = plan.parent
    if parent is None or parent.outcome not in (CREATED, CHANGED) or parent.wanted == plan.parent_meanwhile:
        return None
    return parent.wanted
