# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots: all that one proxy is meant to have, encoded, by kind (ordering.KINDS) and name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import ENDPOINTS, KINDS

from control_plane.encode import Resource, combined, encode

Snapshot = dict[str, dict[str, Resource]]
"""Every kind is there. Never changed once made: streams share it."""


def snapshot(resources: Mapping[str, Mapping[str, dict[str, Any]]]) -> Snapshot:
    """The snapshot of a proxy's resources, plain data by kind and name. Raises EncodeError."""
    return {kind: {name: encode(kind, name, data) for name, data in resources.get(kind, {}).items()} for kind in KINDS}


def version(of: Snapshot) -> str:
    """One version for all resources of a proxy."""
    return combined({f"{kind}/{name}": item.version for kind in KINDS for name, item in of[kind].items()})


@dataclass(frozen=True)
class Difference:
    """What changes between two snapshots: names by kind, only of kinds in which something does."""

    changed: dict[str, set[str]]
    """Added or with other content."""
    removed: dict[str, set[str]]

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


def difference(old: Snapshot, new: Snapshot) -> Difference:
    changed = {kind: {name for name, item in new[kind].items() if old[kind].get(name) != item} for kind in KINDS}
    removed = {kind: old[kind].keys() - new[kind].keys() for kind in KINDS}
    return Difference(
        {kind: names for kind, names in changed.items() if names},
        {kind: names for kind, names in removed.items() if names},
    )


def is_endpoints_only(old: Snapshot, new: Snapshot) -> bool:
    """Whether nothing but replicas come and go: the clusters are the same, the content of their endpoints is not."""
    found = difference(old, new)
    return not found.removed and found.changed.keys() <= {ENDPOINTS} and new[ENDPOINTS].keys() == old[ENDPOINTS].keys()


def with_endpoints(of: Snapshot, old: Snapshot, new: Snapshot) -> Snapshot:
    """A snapshot with the endpoints of ``new`` wherever it has those of ``old``; what differs from both stays."""
    moved = {
        name: new[ENDPOINTS][name]
        for name, item in of[ENDPOINTS].items()
        if name in new[ENDPOINTS] and old[ENDPOINTS].get(name) == item
    }
    return {**of, ENDPOINTS: {**of[ENDPOINTS], **moved}}
