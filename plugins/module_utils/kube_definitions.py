# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a list of definitions asks for: its objects, whether they can be told apart, and the kinds it brings along."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import Object, Resource
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import (
    DEFINITION,
    NAMESPACE,
    group_kind,
    key,
    title,
)


def read(entries: Iterable[Any]) -> tuple[list[Object], list[str]]:
    """The objects of all entries, those of Lists too, and a line for each entry that is none."""
    objects, problems = [], []
    for index, entry in enumerate(entries):
        for path, obj in _flattened(f"definition[{index}]", entry):
            found = _problem(obj)
            if found:
                problems.append(f"{path}: {found}")
            else:
                objects.append({**obj, "metadata": dict(obj["metadata"])})
    return objects, problems


def _flattened(path: str, entry: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(entry, dict) and entry.get("kind") == "List" and isinstance(entry.get("items"), list):
        for index, item in enumerate(entry["items"]):
            yield from _flattened(f"{path}.items[{index}]", item)
    else:
        yield path, entry


def _problem(obj: Any) -> str | None:
    if not isinstance(obj, dict):
        return f"{obj!r} is no object; it has to be a dictionary with apiVersion, kind and metadata"
    lacking = [name for name in ("apiVersion", "kind") if not isinstance(obj.get(name), str) or not obj[name]]
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        lacking.append("metadata.name")
    if not lacking:
        return None
    known = f" of a {obj['kind']}" if isinstance(obj.get("kind"), str) else ""
    generated = isinstance(metadata, dict) and "generateName" in metadata
    hint = "; generateName makes another object each time" if generated else ""
    return f"{' and '.join(lacking)}{known} missing, or no text{hint}"


def repeated(objects: Iterable[Object]) -> list[str]:
    """A line for each object that is there twice."""
    counts = Counter(key(obj) for obj in objects)
    return [
        f"{kind} {f'{namespace}/' if namespace else ''}{name} is in definition {count} times; leave all but one out"
        for (_group, kind, namespace, name), count in counts.items()
        if count > 1
    ]


def brought_kinds(objects: Iterable[Object]) -> dict[tuple[str, str], Resource]:
    """Kinds by apiVersion and name that the definitions themselves bring, as CustomResourceDefinitions."""
    specs = [obj.get("spec") or {} for obj in objects if group_kind(obj) == DEFINITION]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): Resource(
            f"{spec['group']}/{version['name']}",
            spec["names"]["kind"],
            spec["names"]["plural"],
            spec.get("scope") == "Namespaced",
        )
        for spec in specs
        for version in spec.get("versions") or []
        if spec.get("group") and {"kind", "plural"} <= (spec.get("names") or {}).keys() and "name" in version
    }


def brought_namespaces(objects: Iterable[Object]) -> set[str]:
    return {obj["metadata"]["name"] for obj in objects if group_kind(obj) == NAMESPACE}


def with_namespace(obj: Object, found: Resource, namespace: str | None) -> tuple[Object, str | None]:
    """The object in its namespace, and a problem if it has none."""
    own = obj["metadata"].get("namespace")
    if not found.namespaced:
        return {
            **obj,
            "metadata": {name: value for name, value in obj["metadata"].items() if name != "namespace"},
        }, None
    if own or namespace:
        return {**obj, "metadata": {**obj["metadata"], "namespace": own or namespace}}, None
    return obj, f"{title(obj)}: no namespace; give it metadata.namespace, or set namespace for all that have none"
