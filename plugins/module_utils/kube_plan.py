# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an apply would change: found by the API server itself, which tries everything without keeping it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ansible_collections.sidecar.mesh.plugins.module_utils import kube, kube_sets
from ansible_collections.sidecar.mesh.plugins.module_utils import kube_definitions as definitions
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import ApiError, Cluster, Object, Resource
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_errors import is_plain_conflict, lines
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_objects import (
    NAMESPACE,
    Key,
    essence,
    group_kind,
    key,
    role_of,
    roles,
    settled,
    title,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_read import each, fetch, read
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_rollouts import is_rolled_out

CREATED, CHANGED, UNCHANGED, PRUNED, LEFT = "created", "changed", "unchanged", "pruned", "left"

_ATTEMPTS = 3


@dataclass(frozen=True)
class Manner:
    """How objects are applied."""

    field_manager: str
    force: bool
    only_missing: bool
    workers: int


@dataclass(frozen=True)
class Membership:
    """The set that objects are applied as, and the namespaces its parent was in before."""

    name: str
    namespace: str
    previous: list[str]
    prune: bool

    @property
    def identity(self) -> str:
        return kube_sets.set_id(self.name, self.namespace)

    @property
    def former(self) -> dict[str, str]:
        """Ids of former sets by the namespace of their parent."""
        return {name: kube_sets.set_id(self.name, name) for name in self.previous if name != self.namespace}


@dataclass
class Item:
    """An object, and what applying it does. ``tried`` is not set while its namespace, kind or role is not there yet."""

    wanted: Object
    live: Object | None
    after: Object
    outcome: str
    tried: bool = True


@dataclass
class Plan:
    items: list[Item] = field(default_factory=list)
    parent: Item | None = None
    parent_meanwhile: Object | None = None
    """What the parent is while objects that will be pruned are still there."""
    leavers: list[Object] | None = field(default_factory=list)
    """Objects of the set that are wanted no more; None if that may not be asked."""
    prune: list[Object] = field(default_factory=list)

    @property
    def all_items(self) -> list[Item]:
        return [*([self.parent] if self.parent else []), *self.items]

    @property
    def settled(self) -> bool:
        """Whether there is nothing to do, and nothing to wait for, before anything is applied."""
        same = all(item.outcome == UNCHANGED for item in self.all_items)
        return same and self.leavers == [] and all(item.live and is_rolled_out(item.live) for item in self.items)


class PlanError(Exception):
    """Why nothing can be changed: a line for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def make(
    cluster: Cluster, manner: Manner, entries: Iterable[object], namespace: str | None, membership: Membership | None
) -> Plan:
    """Try everything. Raises PlanError, with all problems, and ApiError when the API server does not answer."""
    given, problems = definitions.read(entries)
    brought = definitions.brought_kinds(given)
    objects, more = _placed(cluster, given, brought, namespace)
    problems += more + definitions.repeated(objects)
    if membership:
        objects = [kube_sets.member(obj, membership.identity) for obj in objects]
    live, errors = fetch(cluster, manner.workers, [obj for obj in objects if _is_known(cluster, obj)])
    _refuse_unreachable(errors)
    problems += list(dict.fromkeys(kube.why(error) for error in errors))
    brought_namespaces = definitions.brought_namespaces(objects)
    new_namespaces = {name for name in brought_namespaces if (*NAMESPACE, "", name) not in live}
    new_roles = roles(obj for obj in objects if key(obj) not in live)
    items = [
        Item(
            obj,
            live.get(key(obj)),
            obj,
            CREATED,
            _triable(cluster, obj, new_namespaces) and role_of(obj) not in new_roles,
        )
        for obj in objects
    ]
    plan = Plan(items)
    if membership:
        problems += _join(cluster, manner, plan, membership, new_namespaces)
    problems += attempt(cluster, manner, [item for item in plan.all_items if item.tried])
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return plan


def _placed(
    cluster: Cluster, objects: list[Object], brought: dict[tuple[str, str], Resource], namespace: str | None
) -> tuple[list[Object], list[str]]:
    """The objects in their namespaces, and problems with kinds and namespaces."""
    placed, problems = [], []
    for obj in objects:
        api_version, kind = obj["apiVersion"], obj["kind"]
        try:
            found = kube.resource(cluster, api_version, kind)
        except ApiError as exc:
            _refuse_unreachable([exc])
            if (api_version, kind) not in brought:
                remedy = "install its CustomResourceDefinition, or put that into definition as well"
                problems.append(f"{title(obj)}: {kube.why(exc)}; {remedy}")
                continue
            found = brought[(api_version, kind)]
        moved, problem = definitions.with_namespace(obj, found, namespace)
        if problem:
            problems.append(problem)
        else:
            placed.append(moved)
    return placed, problems


def _triable(cluster: Cluster, obj: Object, new_namespaces: set[str]) -> bool:
    """Whether kind and namespace of an object are there already."""
    return _is_known(cluster, obj) and obj["metadata"].get("namespace") not in new_namespaces


def _is_known(cluster: Cluster, obj: Object) -> bool:
    return obj["kind"] in cluster.discovered.get(obj["apiVersion"], {})


def _refuse_unreachable(errors: Iterable[ApiError]) -> None:
    """There is nothing to collect from an API server that does not answer."""
    for error in errors:
        if error.status in (0, 401):
            raise error


# Trying


def send(cluster: Cluster, manner: Manner, obj: Object, dry_run: bool = False) -> Object:
    """Server-side apply of one object. Raises ApiError."""
    query = {
        "fieldManager": manner.field_manager,
        "force": "true" if manner.force else "false",
        "fieldValidation": "Strict",
        **({"dryRun": "All"} if dry_run else {}),
    }
    path = kube.path_of(cluster, obj)
    for _attempt in range(_ATTEMPTS - 1):
        try:
            return kube.call(cluster, "PATCH", path, query, obj, kube.APPLY)
        except ApiError as exc:
            if not is_plain_conflict(exc):
                raise
    return kube.call(cluster, "PATCH", path, query, obj, kube.APPLY)


def attempt(cluster: Cluster, manner: Manner, items: list[Item]) -> list[str]:
    """Enter into each item what applying it would do; a line for each problem."""
    answers = each(manner.workers, items, lambda item: _attempt(cluster, manner, item))
    failed = [
        (item.wanted, answer) for item, answer in zip(items, answers, strict=True) if isinstance(answer, ApiError)
    ]
    _refuse_unreachable(error for _obj, error in failed)
    return lines(failed)


def _attempt(cluster: Cluster, manner: Manner, item: Item) -> None:
    result = send(cluster, manner, item.wanted, dry_run=True)
    live = item.live
    if live and _version(live) != _version(result):
        # Its controller wrote it since it was read, and what it wrote is no change of ours.
        live = read(cluster, item.wanted)
    item.tried, item.live = True, live
    if live is None:
        item.after, item.outcome = settled(item.wanted, result), CREATED
    elif essence(live) == essence(result):
        item.after, item.outcome = result, UNCHANGED
    elif manner.only_missing and not _is_parent(item):
        item.after, item.outcome = live, LEFT
    else:
        item.after, item.outcome = result, CHANGED


def _version(obj: Object) -> object:
    return obj["metadata"].get("resourceVersion")


def _is_parent(item: Item) -> bool:
    return kube_sets.is_parent(item.wanted)


# Sets


def _join(cluster: Cluster, manner: Manner, plan: Plan, membership: Membership, new_namespaces: set[str]) -> list[str]:
    """Add to the plan the set's parent and what is to be pruned; a line for each problem."""
    name, namespace = membership.name, membership.namespace
    blank = kube_sets.parent(name, namespace, [], [])
    former_blanks = [kube_sets.parent(name, other, [], []) for other in membership.former]
    found, errors = fetch(cluster, 1, [blank, *former_blanks])
    _refuse_unreachable(errors)
    live = found.get(key(blank))
    problems = [kube.why(error) for error in errors]
    problems += [text for text in [kube_sets.parent_problem(live)] if text]
    problems += _strangers(plan.items, {membership.identity, *membership.former.values()})
    former = [found[key(obj)] for obj in former_blanks if key(obj) in found]
    former = [obj for obj in former if kube_sets.parent_problem(obj) is None]
    wanted = [item.wanted for item in plan.items]
    if not problems:
        try:
            plan.leavers = _leavers(cluster, manner, membership, [*([live] if live else []), *former], wanted)
        except ApiError as exc:
            _refuse_unreachable([exc])
            plan.leavers = None
            problems += [kube.why(exc)] if membership.prune else []
    if membership.prune:
        plan.prune = plan.leavers or []
        problems += try_removal(cluster, manner.workers, plan.prune)
    if wanted or not membership.prune:
        plan.parent, plan.parent_meanwhile = _parent(membership, live, wanted, namespace not in new_namespaces)
    return problems


def _parent(membership: Membership, live: Object | None, wanted: list[Object], tried: bool) -> tuple[Item, Object]:
    """The parent as it is to be, and as it is until everything is pruned."""
    kinds = {group_kind(obj) for obj in wanted}
    namespaces = {obj["metadata"].get("namespace") or "" for obj in wanted}
    name, namespace = membership.name, membership.namespace
    final = kube_sets.parent(name, namespace, kinds, namespaces)
    all_namespaces = namespaces | kube_sets.namespaces_of(live)
    meanwhile = kube_sets.parent(name, namespace, kinds | kube_sets.kinds_of(live), all_namespaces)
    final = final if membership.prune else meanwhile
    return Item(final, live, final, CREATED, tried), meanwhile


def _strangers(items: list[Item], identities: set[str]) -> list[str]:
    """Objects that belong to another set, which would prune them."""
    return [
        f"{title(item.live)}: belongs to another set; leave it out, or remove its label {kube_sets.PART_OF}={found}"
        for item in items
        if item.live and (found := kube_sets.set_of(item.live)) and found not in identities
    ]


def _leavers(
    cluster: Cluster, manner: Manner, membership: Membership, parents: list[Object], wanted: list[Object]
) -> list[Object]:
    """Live objects of the set, and of its former ones, that are wanted no more; their parents last. Raises ApiError."""
    identities = {membership.identity, *membership.former.values()}
    namespaces = {name for obj in parents for name in kube_sets.namespaces_of(obj)}
    kinds = sorted({kind for obj in parents for kind in kube_sets.kinds_of(obj)})
    query = {"labelSelector": f"{kube_sets.PART_OF} in ({','.join(sorted(identities))})"}
    resources = [found for found in (_resource(cluster, group, kind) for group, kind in kinds) if found]
    answers = each(manner.workers, resources, lambda found: _members(cluster, found, namespaces, query))
    kept: set[Key] = {key(obj) for obj in wanted}
    found: list[Object] = []
    for answer in answers:
        if isinstance(answer, ApiError):
            raise answer
        found += answer or []
    leaving = kube_sets.leavers(found, identities, kept)
    own = key(kube_sets.parent(membership.name, membership.namespace, [], []))
    return [*leaving, *(obj for obj in parents if key(obj) != own or not wanted)]


def _members(cluster: Cluster, found: Resource, namespaces: set[str], query: dict[str, str]) -> list[Object]:
    """Objects of a kind: all there are where that may be asked, else those of the namespaces."""
    try:
        return list(kube.pages(cluster, kube.list_path(found), query))
    except ApiError as exc:
        if exc.status != 403 or not found.namespaced:
            raise
    return [obj for name in sorted(namespaces) for obj in kube.pages(cluster, kube.list_path(found, name), query)]


def _resource(cluster: Cluster, group: str, kind: str) -> Resource | None:
    """A kind in the first version that has it; None where it is gone, and all its objects with it. Raises ApiError."""
    for api_version in _versions(cluster, group):
        try:
            return kube.resource(cluster, api_version, kind)
        except ApiError as exc:
            if exc.status != 404:
                raise
    return None


def _versions(cluster: Cluster, group: str) -> list[str]:
    if not group:
        return ["v1"]
    try:
        answer = kube.call(cluster, "GET", f"/apis/{group}")
    except ApiError as exc:
        if exc.status == 404:
            return []
        raise
    found = [answer["preferredVersion"], *answer["versions"]]
    return list(dict.fromkeys(version["groupVersion"] for version in found))


def remove(cluster: Cluster, obj: Object, dry_run: bool = False) -> None:
    """Delete that very object, unless it is gone, or another of its name has taken its place. Raises ApiError."""
    body = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Background",
        "preconditions": {"uid": obj["metadata"]["uid"]},
        **({"dryRun": ["All"]} if dry_run else {}),
    }
    try:
        kube.call(cluster, "DELETE", kube.path_of(cluster, obj), body=body)
    except ApiError as exc:
        if exc.status not in (404, 409):
            raise


def try_removal(cluster: Cluster, workers: int, objects: list[Object]) -> list[str]:
    """A line for each object that could not be removed."""
    answers = each(workers, objects, lambda obj: remove(cluster, obj, dry_run=True))
    failed = [(obj, answer) for obj, answer in zip(objects, answers, strict=True) if isinstance(answer, ApiError)]
    _refuse_unreachable(error for _obj, error in failed)
    return lines(failed)
