# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which objects belong together, so that those that are wanted no more can be removed, and never any others.

A set is an ApplySet of Kubernetes (KEP-3659): its objects carry its id in a label, and a ConfigMap, its parent, tells
which kinds and namespaces there are to look through. Source: Kubernetes docs, "ApplySet" labels and annotations.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from ansible_collections.sidecar.mesh.plugins.module_utils.kube import Object
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import (
    DEFINITION,
    LAST_PHASE,
    NAMESPACE,
    Key,
    group_kind,
    key,
    phase,
)

PART_OF = "applyset.kubernetes.io/part-of"
_ID = "applyset.kubernetes.io/id"
_TOOLING = "applyset.kubernetes.io/tooling"
_KINDS = "applyset.kubernetes.io/contains-group-kinds"
_NAMESPACES = "applyset.kubernetes.io/additional-namespaces"
_TOOL = "sidecar.mesh/v1"

GroupKind = tuple[str, str]


def set_id(name: str, namespace: str) -> str:
    """The id of the set whose parent is that ConfigMap."""
    digest = hashlib.sha256(f"{name}.{namespace}.ConfigMap.".encode()).digest()
    return f"applyset-{base64.urlsafe_b64encode(digest).decode().rstrip('=')}-v1"


def member(obj: Object, identity: str) -> Object:
    """The object, labelled as one of the set."""
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), PART_OF: identity}}}


def set_of(obj: Object) -> str | None:
    """Id of the set an object belongs to."""
    found: str | None = (obj["metadata"].get("labels") or {}).get(PART_OF)
    return found


def parent(name: str, namespace: str, kinds: Iterable[GroupKind], namespaces: Iterable[str]) -> Object:
    """The ConfigMap that stands for a set whose objects are of these kinds, in these namespaces."""
    annotations = {
        _TOOLING: _TOOL,
        _KINDS: ",".join(sorted(f"{kind}.{group}" if group else kind for group, kind in kinds)),
        _NAMESPACES: ",".join(sorted(set(namespaces) - {namespace, ""})),
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {_ID: set_id(name, namespace)},
            "annotations": {name: value for name, value in annotations.items() if value},
        },
    }


def is_parent(obj: Object) -> bool:
    return _ID in (obj["metadata"].get("labels") or {})


def kinds_of(found: Object | None) -> set[GroupKind]:
    """The kinds that a parent knows."""
    texts = [text.partition(".") for text in _words(found, _KINDS)]
    return {(group, kind) for kind, _dot, group in texts}


def namespaces_of(found: Object | None) -> set[str]:
    """The namespaces that a parent knows, its own included."""
    return set() if found is None else {found["metadata"]["namespace"], *_words(found, _NAMESPACES)}


def parent_problem(found: Object | None) -> str | None:
    """Why an existing ConfigMap cannot be the parent."""
    if found is None:
        return None
    metadata = found["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    if (metadata.get("labels") or {}).get(_ID) == set_id(name, namespace):
        return None
    return (
        f"apply_set: {name!r}: namespace {namespace} has a ConfigMap of that name, which is no parent of a set; choose "
        "another name"
    )


def leavers(found: Iterable[Object], identities: set[str], kept: set[Key]) -> list[Object]:
    """Objects to remove, in the order of removal. Namespaces and kinds themselves stay, as all in them would go."""
    gone = [
        obj
        for obj in found
        if set_of(obj) in identities and key(obj) not in kept and group_kind(obj) not in (NAMESPACE, DEFINITION)
    ]
    return sorted(gone, key=lambda obj: ((LAST_PHASE - phase(obj)), key(obj)))


def _words(found: Object | None, annotation: str) -> list[str]:
    annotations = (found or {"metadata": {}})["metadata"].get("annotations") or {}
    return [word for word in annotations.get(annotation, "").split(",") if word]
