# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ConfigMaps of a mesh on Kubernetes: which state each is to reach, and how one is written."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import Stats, refusals
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import BOOTSTRAP_FILE, CLUSTERS_FILE
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.publishing import held, steps

Object = dict[str, Any]
Files = dict[str, str]

TOUCHED = "sidecar.mesh/config"
"""Annotation of pods that tells the kubelet to look at their ConfigMaps again, and people which content they have."""


def files(config_map: Object) -> Files:
    return dict(config_map.get("data") or {})


def workload(config_map: Object) -> str:
    return str((config_map["metadata"].get("labels") or {}).get(names.WORKLOAD_LABEL, ""))


def targets(existing: list[Object], final: list[Object]) -> dict[str, Files]:
    """``{ConfigMap: files}`` for those that exist, belong to a workload of the mesh as it will be, and can be changed.

    Of a proxy that has all of it in its bootstrap nothing can.

    Pods that were started with another ConfigMap of their workload are rolled later. Until then they keep what they
    were started with, their bootstrap and their application's side, and take the rest.
    """
    named = {item["metadata"]["name"]: files(item) for item in final}
    by_workload = {workload(item): files(item) for item in final}
    found = {}
    for item in existing:
        name, old = item["metadata"]["name"], files(item)
        new = named.get(name, by_workload.get(workload(item), {}))
        if CLUSTERS_FILE in old and CLUSTERS_FILE in new:
            found[name] = new if name in named else {**held(old, new), BOOTSTRAP_FILE: old[BOOTSTRAP_FILE]}
    return found


def changed_files(old: Files, new: Files) -> list[str]:
    return sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))


def states(old: Files, new: Files, refused: bool) -> list[Files]:
    """The content before and after each step.

    What a proxy ``refused`` it would refuse again in every step that still has it, so it is replaced at once.
    """
    if old == new:
        return [old]
    return [old, new] if refused else [old, *steps(old, new)]


def written(existing: Object, new: Files, manager: str) -> Object:
    """A ConfigMap for server-side apply: with other files, and all else that ``manager`` applied before.

    With its uid nobody brings back what was deleted meanwhile.
    """
    metadata = existing["metadata"]
    kept = {
        part: {key: value for key, value in (metadata.get(part) or {}).items() if key in applied}
        for part, applied in _applied(metadata, manager).items()
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            **{key: metadata[key] for key in ("name", "namespace", "uid")},
            **{part: values for part, values in kept.items() if values},
        },
        "data": new,
    }


def _applied(metadata: Object, manager: str) -> dict[str, set[str]]:
    """Labels and annotations that a field manager applied. Source: Kubernetes docs, "Server-Side Apply"."""
    found: dict[str, set[str]] = {"labels": set(), "annotations": set()}
    for entry in metadata.get("managedFields") or []:
        if entry.get("manager") == manager and entry.get("operation") == "Apply":
            fields = (entry.get("fieldsV1") or {}).get("f:metadata", {})
            for part, keys in found.items():
                keys |= {key.removeprefix("f:") for key in fields.get(f"f:{part}", {}) if key.startswith("f:")}
    return found


def mark(new: Files, number: int = 0) -> str:
    """Value of TOUCHED for this content. ``number`` makes another one, to be noticed again."""
    return f"{content_hash(new)}-{number}" if number else content_hash(new)


def refusal_counts(stats: Stats, new: Files) -> dict[str, int]:
    return {name: refusals(stats, name) for name in new}


def newly_refused(stats: Stats, late: list[str], before: dict[str, int]) -> list[str]:
    """Which of the late files the proxy has refused since; one that was restarted counts from the beginning."""
    now = refusal_counts(stats, dict.fromkeys(late, ""))
    return [name for name in late if now[name] and now[name] != before.get(name, 0)]


def diffs(namespace: str, name: str, old: Files, new: Files) -> list[dict[str, str]]:
    """One entry a changed file."""
    return [
        {
            "before_header": f"ConfigMap {namespace}/{name} {file}",
            "after_header": f"ConfigMap {namespace}/{name} {file}",
            "before": old.get(file, ""),
            "after": new.get(file, ""),
        }
        for file in changed_files(old, new)
    ]
