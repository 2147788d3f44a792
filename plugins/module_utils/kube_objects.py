# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes objects as plain data: what they are called, in which order they are applied, and how they differ."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import Object, group_of

Key = tuple[str, str, str, str]
"""Group, kind, namespace, name."""

NAMESPACE = ("", "Namespace")
DEFINITION = ("apiextensions.k8s.io", "CustomResourceDefinition")
WORKLOADS = {
    ("apps", "Deployment"),
    ("apps", "StatefulSet"),
    ("apps", "DaemonSet"),
    ("apps", "ReplicaSet"),
    ("batch", "Job"),
    ("batch", "CronJob"),
    ("", "Pod"),
}
# What others need comes first: a pod its account and configuration, a policy before the traffic it limits.
PHASES: list[set[tuple[str, str]]] = [
    {NAMESPACE},
    {DEFINITION},
    {
        ("", "ServiceAccount"),
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "ResourceQuota"),
        ("", "LimitRange"),
        ("", "PersistentVolume"),
        ("", "PersistentVolumeClaim"),
        ("storage.k8s.io", "StorageClass"),
        ("scheduling.k8s.io", "PriorityClass"),
        ("rbac.authorization.k8s.io", "Role"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
    },
    {
        ("", "Service"),
        ("rbac.authorization.k8s.io", "RoleBinding"),
        ("rbac.authorization.k8s.io", "ClusterRoleBinding"),
    },
    {
        ("networking.k8s.io", "NetworkPolicy"),
        ("cilium.io", "CiliumNetworkPolicy"),
        ("cilium.io", "CiliumClusterwideNetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
    },
    WORKLOADS,
]
LAST_PHASE = len(PHASES)

_OF_THE_SERVER = {"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"}
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SALT = secrets.token_bytes(16)
_HASH = 4


_RBAC = "rbac.authorization.k8s.io"
Role = tuple[str, str, str]
"""Kind, namespace and name."""


def roles(objects: Iterable[Object]) -> set[Role]:
    """The Roles and ClusterRoles among objects."""
    found = (obj for obj in objects if group_kind(obj) in ((_RBAC, "Role"), (_RBAC, "ClusterRole")))
    return {(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in found}


def role_of(obj: Object) -> Role | None:
    """What a binding binds. To whom has not all its rights, the API server refuses a binding whose role is not there.

    Source: Kubernetes docs, "Using RBAC Authorization", restrictions on role binding creation or update.
    """
    if group_kind(obj) not in ((_RBAC, "RoleBinding"), (_RBAC, "ClusterRoleBinding")):
        return None
    reference = obj.get("roleRef") or {}
    kind = reference.get("kind", "")
    namespace = obj["metadata"].get("namespace", "") if kind == "Role" else ""
    return kind, namespace, reference.get("name", "")


def group_kind(obj: Object) -> tuple[str, str]:
    return group_of(obj["apiVersion"]), obj["kind"]


def key(obj: Object) -> Key:
    """What tells an object from all others."""
    metadata = obj["metadata"]
    return (*group_kind(obj), metadata.get("namespace") or "", metadata["name"])


def title(obj: Object) -> str:
    """``Deployment shop/service-a``"""
    namespace = obj["metadata"].get("namespace")
    name = obj["metadata"]["name"]
    return f"{obj['kind']} {namespace}/{name}" if namespace else f"{obj['kind']} {name}"


def phase(obj: Object) -> int:
    """When an object is applied: all of a phase before any of the next."""
    found = group_kind(obj)
    return next((number for number, kinds in enumerate(PHASES) if found in kinds), LAST_PHASE)


def is_secret(obj: Object) -> bool:
    return group_kind(obj) == ("", "Secret")


def essence(obj: Object) -> Object:
    """An object without what the API server writes, and without kubectl's copy of what was applied."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _OF_THE_SERVER}
    for name in ("annotations", "labels"):
        kept = {word: value for word, value in (metadata.pop(name, None) or {}).items() if word != _LAST_APPLIED}
        if kept:
            metadata[name] = kept
    return {**{name: value for name, value in obj.items() if name != "status"}, "metadata": metadata}


def settled(wanted: Object, result: Object) -> Object:
    """The dry-run result of a new object, without the addresses and ports of Services, which will be others."""
    if group_kind(wanted) != ("", "Service"):
        return result
    asked: Object = wanted.get("spec") or {}
    spec = {
        name: value
        for name, value in result.get("spec", {}).items()
        if name in asked or name not in ("clusterIP", "clusterIPs", "healthCheckNodePort")
    }
    if not any("nodePort" in port for port in asked.get("ports") or []):
        ports = [{name: port[name] for name in port if name != "nodePort"} for port in spec.get("ports", [])]
        spec = {**spec, **({"ports": ports} if ports else {})}
    return {**result, "spec": spec}


def shown(obj: Object) -> Object:
    """An object as anyone may see it: a Secret's values as hashes that hold for one run only."""
    if not is_secret(obj):
        return obj
    hashed = {name: {word: _hash(value) for word, value in (obj.get(name) or {}).items()} for name in _data_names(obj)}
    return {**obj, **hashed}


def diff(before: Object | None, after: Object | None) -> dict[str, str]:
    """An entry of Ansible's diff, of one object."""
    header = title(after or before or {})
    texts = ["" if obj is None else envoy_yaml.dump(shown(essence(obj))) for obj in (before, after)]
    return {"before_header": header, "after_header": header, "before": texts[0], "after": texts[1]}


def tells(obj: Object, message: str) -> bool:
    """Whether a message about a Secret has one of its values, or a part, in any way of writing it."""
    if not is_secret(obj):
        return False
    values = [value for name in _data_names(obj) for value in (obj.get(name) or {}).values()]
    return any(part in message for value in values for part in _writings(value))


def _data_names(obj: Object) -> list[str]:
    return [name for name in ("data", "stringData") if name in obj]


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    digest = hashlib.blake2b(text.encode(), digest_size=_HASH, key=_SALT).hexdigest()
    return f"(hidden, hash {digest})"


def _writings(value: Any) -> set[str]:
    text = value if isinstance(value, str) else json.dumps(value)
    found = {text, json.dumps(text)[1:-1], *(line for line in text.splitlines() if len(line) > 3)}
    return {part for part in found if part}
