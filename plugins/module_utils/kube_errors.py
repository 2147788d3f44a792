# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong with objects, in lines for people: whose field it is, which right is missing, and no Secret."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import ApiError, Object, why
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import tells, title

_NAMED = 3
_MANAGER = re.compile(r'conflict with "([^"]+)"')


def problem(obj: Object, error: ApiError) -> str:
    """Why the API server refused an object, in one line without the object's name."""
    said = _namespace_missing(obj, error) or _conflict(error) or why(error)
    if not tells(obj, f"{said} {error.message}"):
        return said
    fields = ", ".join(sorted({cause.get("field", "") for cause in _causes(error)} - {""}))
    about = f" (fields: {fields})" if fields else ""
    return f"refused as {error.reason or error.status}{about}; the reason has a value of the Secret and is not shown"


def lines(found: Iterable[tuple[Object, ApiError]]) -> list[str]:
    """A line for each problem, with the objects that have it."""
    titles = defaultdict(list)
    for obj, error in found:
        titles[problem(obj, error)].append(title(obj))
    return [f"{some(names, _NAMED)}: {text}" for text, names in titles.items()]


def some(names: list[str], most: int) -> str:
    """The first names, and how many there are besides."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _namespace_missing(obj: Object, error: ApiError) -> str | None:
    namespace = obj["metadata"].get("namespace")
    if error.status != 404 or error.details.get("kind") != "namespaces" or error.details.get("name") != namespace:
        return None
    return f"namespace {namespace} does not exist; create it, or put it into definition as well"


def _conflict(error: ApiError) -> str | None:
    """Fields that another field manager has set to another value."""
    fields: dict[str, list[str]] = defaultdict(list)
    for cause in _causes(error):
        if cause.get("reason") == "FieldManagerConflict":
            manager = _MANAGER.search(cause.get("message", ""))
            fields[manager[1] if manager else "another field manager"].append(cause.get("field", ""))
    if not fields:
        return None
    owned = "; ".join(f"{manager} has set {', '.join(names)}" for manager, names in fields.items())
    return f"{owned}, to another value; leave that out of definition, or take it over by force_conflicts: true"


def is_plain_conflict(error: ApiError) -> bool:
    """Somebody else wrote the object at the same instant; another try may do."""
    return error.status == 409 and _conflict(error) is None


def _causes(error: ApiError) -> list[Object]:
    return error.details.get("causes") or []
