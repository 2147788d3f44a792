# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many requests at once, and many objects by few requests."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import (
    ApiError,
    Cluster,
    Object,
    call,
    list_path,
    pages,
    path_of,
    resource,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import Key, key

Item = TypeVar("Item")
Result = TypeVar("Result")

_FEW = 4
"""So many objects of a kind and namespace are asked for one by one."""


def each(workers: int, items: Sequence[Item], do: Callable[[Item], Result]) -> list[Result | ApiError | None]:
    """What ``do`` returned or raised for each item; None for those not tried as the API server no longer answered."""
    gone = threading.Event()

    def attempt(item: Item) -> Result | ApiError | None:
        if gone.is_set():
            return None
        try:
            return do(item)
        except ApiError as exc:
            if exc.status == 0:
                gone.set()
            return exc

    if len(items) < 2:
        return [attempt(item) for item in items]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        return list(pool.map(attempt, items))


def fetch(cluster: Cluster, workers: int, wanted: Iterable[Object]) -> tuple[dict[Key, Object], list[ApiError]]:
    """The live objects of those wanted, and why some could not be read. Those that do not exist are in neither."""
    groups: dict[tuple[str, str, str], list[Object]] = defaultdict(list)
    for obj in wanted:
        groups[(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace") or "")].append(obj)
    many = [group for group, objects in groups.items() if len(objects) > _FEW]
    listed = dict(zip(many, each(workers, many, lambda group: _list(cluster, *group)), strict=True))
    found = {key(obj): obj for answer in listed.values() if isinstance(answer, list) for obj in answer}
    # Who may not list may still get.
    alone = [obj for group, objects in groups.items() if not isinstance(listed.get(group), list) for obj in objects]
    errors = []
    for answer in each(workers, alone, lambda obj: read(cluster, obj)):
        if isinstance(answer, ApiError):
            errors.append(answer)
        elif answer is not None:
            found[key(answer)] = answer
    return found, errors


def read(cluster: Cluster, obj: Object) -> Object | None:
    """The live object; None where it does not exist. Raises ApiError."""
    try:
        return call(cluster, "GET", path_of(cluster, obj))
    except ApiError as exc:
        if exc.status == 404:
            return None
        raise


def _list(cluster: Cluster, api_version: str, kind: str, namespace: str) -> list[Object]:
    return list(pages(cluster, list_path(resource(cluster, api_version, kind), namespace)))
