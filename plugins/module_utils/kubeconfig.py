# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's context in a kubeconfig with those of others, which are left as they are.

Cluster, user and context have the same name. Source: Kubernetes docs, "Organizing Cluster Access".
"""

from __future__ import annotations

import copy
from typing import Any

Item = dict[str, Any]

SECTIONS = {"clusters": "cluster", "users": "user", "contexts": "context"}
EMPTY: Item = {"apiVersion": "v1", "kind": "Config", "preferences": {}, "clusters": [], "users": [], "contexts": []}


class KubeconfigError(ValueError):
    """The file is no kubeconfig, or the context is somebody else's."""


def merged(present: Item | None, name: str, server: str, source: Item) -> Item:
    """``present`` with the first cluster and user of ``source``, k3s' own kubeconfig, as ``name`` and at ``server``.

    The current context is set only where there is none yet. Raises KubeconfigError when the name is another cluster's.
    """
    cluster = {**_first(source, "clusters"), "server": server}
    entries = {"clusters": cluster, "users": _first(source, "users"), "contexts": {"cluster": name, "user": name}}
    result = {**EMPTY, **copy.deepcopy(present or {})}
    owner = _entry(result, "clusters", name)
    if owner is not None and not _is_same(owner, cluster):
        raise KubeconfigError(
            f"context {name!r} is of another cluster, at {owner.get('server')}; choose another k3s_context, or remove"
            f" that one (kubectl config delete-context {name}, delete-cluster, delete-user)"
        )
    for section, key in SECTIONS.items():
        entry = entries[section]
        if section == "contexts":  # a namespace somebody set by hand stays
            entry = {**(_entry(result, section, name) or {}), **entry}
        result[section] = _replaced(result[section] or [], {"name": name, key: entry}, key)
    if not result.get("current-context"):
        result["current-context"] = name
    return result


def removed(present: Item | None, name: str, server: str) -> Item | None:
    """``present`` without the context of that name, if it is of the cluster at ``server``; else as it was."""
    owner = _entry(present or {}, "clusters", name)
    if present is None or owner is None or owner.get("server") != server:
        return present
    result = copy.deepcopy(present)
    for section in SECTIONS:
        result[section] = [entry for entry in result.get(section) or [] if entry.get("name") != name]
    if result.get("current-context") == name:
        result["current-context"] = ""
    return result


def is_empty(present: Item | None) -> bool:
    """Whether nothing is left that anybody could use."""
    return not any((present or {}).get(section) for section in SECTIONS)


def described(present: Item | None) -> str:
    """What a person may see of it: the contexts, and where their clusters are."""
    present = present or {}
    lines = [f"current-context: {present.get('current-context') or ''}"]
    for entry in present.get("contexts") or []:
        context = entry.get("context") or {}
        cluster, user = context.get("cluster"), context.get("user")
        server = (_entry(present, "clusters", str(cluster)) or {}).get("server")
        lines.append(f"context {entry.get('name')}: cluster {cluster} at {server}, user {user}")
    return "".join(f"{line}\n" for line in lines)


def checked(data: Any, path: str) -> Item | None:
    """What was read of a file, if it can be one. Raises KubeconfigError."""
    if data is None:
        return None
    lists = isinstance(data, dict) and all(isinstance(data.get(section) or [], list) for section in SECTIONS)
    if not lists:
        raise KubeconfigError(f"{path} is no kubeconfig; move it away, or set k3s_kubeconfig to another file")
    return dict(data)


def _first(source: Item, section: str) -> Item:
    return dict(source[section][0][SECTIONS[section]])


def _entry(config: Item, section: str, name: str) -> Item | None:
    for entry in config.get(section) or []:
        if entry.get("name") == name:
            return dict(entry.get(SECTIONS[section]) or {})
    return None


def _is_same(present: Item, cluster: Item) -> bool:
    """A cluster is known by its address, or by its authority after it got another address."""
    authority = "certificate-authority-data"
    return present.get("server") == cluster["server"] or (
        bool(cluster.get(authority)) and present.get(authority) == cluster[authority]
    )


def _replaced(entries: list[Item], new: Item, key: str) -> list[Item]:
    if all(entry.get("name") != new["name"] for entry in entries):
        return [*entries, new]
    return [{**entry, key: new[key]} if entry.get("name") == new["name"] else entry for entry in entries]
