# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds out what in a joined config Envoy refuses, and says it in terms of the files it was joined from.

Envoy stops at the first mistake, often without a word about where it is. ``locate`` takes the place from Envoy's
message, or finds the guilty resource by bisection with harmless stand-ins for the others; then it repairs that place in
a copy and asks again, until Envoy is content. All this runs only for configs that Envoy refused.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.validate_join import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    NOWHERE,
    ROUTES,
    SECRET,
    SOURCE,
    Joined,
    Map,
    Mount,
    Path,
    Plain,
    Problem,
    as_map,
    show_path,
    walk,
)

MAX_PROBLEMS = 20  # of one config; whoever has more learns the rest next time
_MAX_PROBES = 20
_MAX_HINTS = 4
_MAX_REASON = 400  # characters


# ------------------------------------------------------------------------------------------------------ what Envoy said
_VERDICT = re.compile(r"^configuration '.*' OK$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How ``envoy --mode validate`` ended.

    ``code`` is negative after a signal, and None after a timeout; then ``output`` says how long it was.
    """

    code: int | None
    output: str

    @property
    def accepted(self) -> bool:
        return self.code == 0 and bool(_VERDICT.search(self.output))

    @property
    def refused(self) -> bool:
        """Envoy looked at the config and found a mistake; False also when it could not look."""
        return self.code == 1 and bool(self.messages("critical"))

    def messages(self, level: str) -> list[str]:
        """Envoy's messages of one level, each on one line. Expects the log format ``[%l] %v``."""
        logged = _VERDICT.sub("", self.output)
        parts = re.split(r"^\[(trace|debug|info|warning|error|critical)\] ", logged, flags=re.MULTILINE)
        return [" ".join(text.split()) for name, text in zip(parts[1::2], parts[2::2], strict=True) if name == level]

    def failure(self) -> str:
        """Why there is no verdict on the config, for a person."""
        if self.code is None:
            return f"Envoy was stopped because it had not finished within {self.output}"
        number = -self.code if self.code < 0 else self.code - 128
        critical = self.messages("critical")  # the first says why, such as a limit of the host; a stack trace follows
        last = " ".join(self.output.partition("Brief USAGE")[0].split())[-_MAX_REASON:] or "no output"
        text = critical[0][:_MAX_REASON] if critical else last
        if number > 0:
            names = {item.value: item.name for item in signal.Signals}
            return f"Envoy was ended by signal {number} ({names.get(number, 'unknown')}): {text}"
        return f"Envoy ended with code {self.code} without a verdict: {text}"


Run = Callable[[Map], Outcome]
Guilty = tuple[Mount, Outcome]


@dataclass(frozen=True)
class Refusal:
    """Envoy's first objection. ``path``: in the joined config, if told; ``unknown``: the field it does not know."""

    reason: str
    path: Path | None = None
    unknown: str = ""


_SCHEMA = re.compile(
    r"invalid JSON in [\w.]+(?: @ (?P<path>[^\s:]+): (?:message |enum )?(?P<type>[\w.]+))?,? near \d+:\d+ "
    r"\(offset \d+\): (?P<detail>.*?)(?:\) has unknown fields$|\): \{)"
)
_CONSTRAINT = re.compile(r"Proto constraint validation failed \((?P<chain>.*)\)")
_QUOTED = re.compile(r"'([^']+)'|\"([^\"]+)\"|(/[^\s'\",;:]+)")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def refusal(outcome: Outcome, tree: Map) -> Refusal:
    """Reads Envoy's critical message. What Envoy prints of the config itself is left out: it may hold keys."""
    text = re.sub(r"^error initializing configuration '.*?': ", "", outcome.messages("critical")[0])
    schema, constraint = _SCHEMA.search(text), _CONSTRAINT.search(text)
    if schema:
        return _schema_refusal(schema, tree)
    if constraint:
        return _constraint_refusal(constraint["chain"], tree)
    text = re.sub(r"^Unable to parse JSON as proto \((?:INVALID_ARGUMENT: )?(.*?)\): \{.*$", r"\1", text)
    text = re.sub(r"^Protobuf message \(type \S+ reason (?:INVALID_ARGUMENT: )?(.*)\) has unknown fields$", r"\1", text)
    text = re.sub(r":? ?goo\.gle/debug\w+ .*$", "", text)
    return Refusal(text[:_MAX_REASON])


def _schema_refusal(match: re.Match[str], tree: Map) -> Refusal:
    path, value = _resolve(tree, match["path"] or "")
    detail, of = match["detail"], match["type"] or "the bootstrap"
    unknown = re.fullmatch(r"no such field: '(.*)'", detail)
    if unknown:
        return Refusal(f"unknown field {unknown[1]!r} in {of}", path, unknown[1] if unknown[1] in as_map(value) else "")
    if of == "string" and isinstance(value, Plain):
        return Refusal(f"must be text, but Envoy reads {str(value) or 'nothing'} without quotes as another type", path)
    secret = str(path[-1:]).startswith("('inline_")
    shown = f"{str(value)!r}: " if isinstance(value, str) and len(value) < 100 and not secret else ""
    shown = "" if shown[:-2] in detail else shown
    return Refusal(f"{shown}{detail}" + (f" ({of})" if "." in of else ""), path)


def _constraint_refusal(chain: str, tree: Map) -> Refusal:
    """``BootstrapValidationError.StaticResources: … | caused by StaticResourcesValidationError.Clusters[0]: …``."""
    links = re.findall(r"(?:^| \| caused by )(\w+)ValidationError\.(\w+)((?:\[\d+\])?)", chain)
    names = [_snake(name) + index for _type, name, index in links]
    path = _resolve(tree, ".".join(names))[0]
    what, _colon, reason = chain.split(" | caused by ")[-1].partition(": ")
    if links and links[0][0] != "Bootstrap":
        return Refusal(f"{links[-1][0]}.{names[-1]}: {reason}"[:_MAX_REASON])
    if show_path(path) == ".".join(names):
        return Refusal(reason[:_MAX_REASON], path)
    return Refusal(f"{names[-1] if names else what}: {reason}"[:_MAX_REASON], path)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _resolve(tree: Any, text: str) -> tuple[Path, Any]:
    """Path and value of Envoy's ``clusters[0].typed_config.<any>.name``, as far as the tree has them.

    Entries of maps have numbers there that say nothing, as maps have no order.
    """
    path: Path = ()
    for name, index in _STEP.findall(text):
        step: str | int = int(index) if index else name
        if isinstance(tree, dict) and index and len(tree) == 1:
            step = next(iter(tree))
        if name == "<any>":
            continue
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return path, None
        path = (*path, step)
    return path, tree


# ------------------------------------------------------------------------------------------------------- changed copies
def replaced(tree: Any, path: Path, value: Any) -> Any:
    """The tree with another value at ``path``; None takes it away. The tree itself stays as it is."""
    if not path:
        return value
    copy: Any = tree.copy()
    if len(path) == 1 and value is None:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def _at(tree: Any, path: Path) -> Any:
    """The value at a path; None where there is none."""
    for step in path:
        try:
            tree = tree[step]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def stand_in(mount: Mount, resource: Any) -> Map:
    """A harmless resource of the same name, so that whatever refers to it stays right."""
    given = as_map(resource).get(mount.kind.name_key if mount.kind else "")
    name = given if given and isinstance(given, str) else show_path(mount.path)
    if mount.kind is LISTENER:
        port = str(int(mount.path[-1]) % 65535 + 1)
        address = {"address": "127.255.255.254", "port_value": Plain(port)}
        return {"name": name, "address": {"socket_address": address}, "filter_chains": [{}]}
    if mount.kind is CLUSTER:
        return {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name}}
    if mount.kind is SOURCE:
        return {"path_config_source": {"path": NOWHERE}}
    if mount.kind is SECRET:
        return {"name": mount.file, "generic_secret": {"secret": {"inline_string": "nothing"}}}
    return {"cluster_name": name} if mount.kind is ENDPOINTS else {"name": name}


def without(tree: Map, mounts: Iterable[Mount]) -> Map:
    """The tree with stand-ins for these resources; what is in one that has a stand-in already is gone."""
    for mount in sorted(mounts, key=lambda mount: len(mount.path), reverse=True):
        resource = _at(tree, mount.path)
        if resource is not None:
            tree = replaced(tree, mount.path, stand_in(mount, resource))
    return tree


# ----------------------------------------------------------------------------------------------------------- the search
def locate(joined: Joined, first: Outcome, run: Run) -> list[Problem]:
    """Every mistake Envoy finds in a joined config. ``first``: what it said about it (see ``start``)."""
    search = _Search(joined, run)
    return sorted({*search.refusals(first), *search.deprecations()}, key=_natural)


def _natural(problem: Problem) -> list[tuple[bool, int, str]]:
    """Sorts resources[2] before resources[10], and what has no place last."""
    parts = re.split(r"(\d+)", str(problem))
    return [
        (not problem.file, 0, ""),
        *((False, int(part), "") if part.isdigit() else (True, 0, part) for part in parts),
    ]


def start(joined: Joined) -> Map:
    """The config to begin with: the joined one without what is known to be broken."""
    return without(joined.tree, [mount for mount in joined.mounts if mount.path in joined.broken])


class _NoVerdictError(Exception):
    """Envoy could not look at a config, which says nothing about the config; the text says why."""


class _Search:
    """One config's mistakes. ``tree`` loses each of them once it is known."""

    def __init__(self, joined: Joined, run: Run) -> None:
        self.joined = joined
        self.run = run
        self.tree = start(joined)
        self.deprecated: dict[str, None] = {}  # in the order seen
        self.tops = [mount for mount in joined.mounts if mount.kind in (LISTENER, CLUSTER)]
        self.inners = [mount for mount in joined.mounts if mount.kind in (ROUTES, ENDPOINTS)]
        self.sources = [mount for mount in joined.mounts if mount.kind is SOURCE]
        self.repaired: set[Path] = set()

    def refusals(self, outcome: Outcome) -> Iterator[Problem]:
        for _number in range(MAX_PROBLEMS):
            self._note_deprecations(outcome)
            if outcome.accepted:
                return
            if not outcome.refused:
                yield Problem("", "", outcome.failure())
                return
            path, found = self._find(refusal(outcome, self.tree))
            yield self.joined.problem_at(path, found.reason) if path is not None else Problem("", "", found.reason)
            if path is None or not self._repair(path, found):
                return
            outcome = self.run(self.tree)
        yield Problem("", "", f"only the first {MAX_PROBLEMS} problems are shown")

    def _find(self, found: Refusal) -> tuple[Path | None, Refusal]:
        """Where the mistake is (None: in no single place), and what Envoy says about it there."""
        if found.path is not None:
            return found.path, found
        hints = self._hints(found.reason)
        try:
            guilty = self._confirm(hints) or self._bisect()
        except _NoVerdictError as exc:
            return None, Refusal(f"{found.reason} (where is not known: {exc})")
        if guilty is None:  # only together with another: a taken address
            quoted = [mount for mount in hints if f"'{mount.name}'" in found.reason]
            quoted.sort(key=lambda mount: str(mount.path[1])[:-1] not in found.reason)  # "error adding listener: 'x'"
            return (quoted[0].path if quoted else None), found
        mount, outcome = guilty
        exact = refusal(outcome, self.tree)
        return (exact.path or self._narrow(mount, exact.reason)), exact

    def _repair(self, path: Path, found: Refusal) -> bool:
        """Takes the mistake out of the tree; False where nothing can stand in for it."""
        mount = self.joined.mount_at(path)
        again = mount.path in self.repaired
        if found.unknown:
            self.tree = replaced(self.tree, (*path, found.unknown), None)
            return True
        self.repaired.add(mount.path)
        if mount.kind is SECRET:
            self.tree = without(self.tree, [top for top in self.tops if _uses(self.tree, top, mount.file)])
        if mount.kind:
            self.tree = without(self.tree, [mount])
        return bool(mount.kind) and not again

    # -- by what the message says
    def _hints(self, reason: str) -> list[Mount]:
        """Resources the message may be about: those whose name it has, those that alone have a value it quotes."""
        words = set(re.findall(r"[\w.:/@-]+", reason)) | {word.rstrip(".:") for word in reason.split()}
        named = [mount for mount in (*self.tops, *self.inners) if mount.name in words]
        named.sort(key=lambda mount: f"'{mount.name}'" not in reason)
        quoted = [self.joined.mount_at(path) for path in self._values(reason, ())]
        hints = dict.fromkeys(mount for mount in (*named, *quoted) if mount in self.inners or mount in self.tops)
        return list(hints)[:_MAX_HINTS]

    def _values(self, reason: str, inside: Path) -> list[Path]:
        """Paths of the values the message quotes, and of the files it names, if there is only one such place."""
        quoted = {one or two or three for one, two, three in _QUOTED.findall(reason)}
        paths: list[Path] = []
        for path, block in walk(self.tree):
            if path[: len(inside)] == inside or path[:2] == ("static_resources", "secrets"):
                paths += [(*path, key) for key, value in block.items() if isinstance(value, str) and value in quoted]
        return paths if len(paths) == 1 else []

    def _narrow(self, mount: Mount, reason: str) -> Path:
        """The place within a resource, if the message quotes it."""
        found = self._values(reason, mount.path)
        return mount.path if not found else found[0][:-1] if found[0][-1] == "name" else found[0]

    # -- by trial
    def _confirm(self, hints: Iterable[Mount]) -> Guilty | None:
        for mount in hints:
            others = [top for top in self.tops if top.path != mount.path[:3]]
            outcome = self._refused_without([*others, *(inner for inner in self.inners if inner != mount)])
            if outcome:
                return mount, outcome
        return None

    def _bisect(self) -> Guilty | None:
        """A resource that Envoy refuses even when stand-ins replace its peers."""
        outcome = self._refused_without([*self.tops, *self.inners])
        if outcome:
            return Mount((), None, "bootstrap.yaml"), outcome
        if self.inners and not self._refused_without(self.inners):
            return self._halve(self.inners, self.inners, [])
        return self._halve(self.tops, self.tops, self.inners)

    def _halve(self, suspects: list[Mount], peers: list[Mount], never: list[Mount]) -> Guilty | None:
        """The first of the suspects that is refused while its peers, and ``never``, have stand-ins."""
        middle = len(suspects) // 2
        for half in filter(None, (suspects[:middle], suspects[middle:])):
            outcome = self._refused_without([*(peer for peer in peers if peer not in half), *never])
            if outcome:
                return (half[0], outcome) if len(half) == 1 else self._halve(half, peers, never)
        return None

    def _refused_without(self, mounts: Iterable[Mount]) -> Outcome | None:
        outcome = self.run(without(self.tree, mounts))
        if not outcome.accepted and not outcome.refused:
            raise _NoVerdictError(outcome.failure())
        return outcome if outcome.refused else None

    # -- deprecated fields
    def _note_deprecations(self, outcome: Outcome) -> None:
        self.deprecated.update(dict.fromkeys(deprecations(outcome)))

    def deprecations(self) -> Iterator[Problem]:
        for message in self.deprecated:
            match = _DEPRECATED.search(message)
            places = list(self._deprecated_places(message, match["option"], match["value"])) if match else []
            if not match or not places:
                yield Problem("", "", message[:_MAX_REASON])
                continue
            for mount, paths in places:
                path = paths[0] if len(paths) == 1 else mount.path
                yield self.joined.problem_at(path, _deprecation(match, len(paths)))

    def _deprecated_places(self, message: str, option: str, value: str | None) -> Iterator[tuple[Mount, list[Path]]]:
        owner, _dot, key = option.rpartition(".")
        places: dict[Mount, list[Path]] = {}
        for path, block in walk(self.joined.tree):
            if key in block and (value is None or block[key] == value):
                mount = self.joined.mount_at(path)
                if mount.kind is None or mount.kind.type != owner or mount.path == path:
                    places.setdefault(mount, []).append((*path, key))
        exact = all(mount.kind and mount.kind.type == owner for mount in places)
        sure = exact or not 1 < len(places) <= _MAX_PROBES
        for mount, paths in places.items():
            if sure or mount.path in self.repaired or message in deprecations(self.run(self._only(mount))):
                yield mount, paths

    def _only(self, mount: Mount) -> Map:
        others = [top for top in self.tops if top.path != mount.path[:3]]
        return without(self.tree, [*others, *(other for other in (*self.inners, *self.sources) if other != mount)])


_DEPRECATED = re.compile(r"Using [\w -]*deprecated (?:option|value (?P<value>\S+) for enum) '(?P<option>[\w.]+)'")
_REPLACEMENTS = {  # source: Envoy docs, "Version history"
    "Cluster.dns_refresh_rate": "cluster_type envoy.clusters.dns",
    "Cluster.dns_failure_refresh_rate": "cluster_type envoy.clusters.dns",
    "Cluster.dns_jitter": "cluster_type envoy.clusters.dns",
    "Cluster.dns_resolvers": "cluster_type envoy.clusters.dns",
    "Cluster.respect_dns_ttl": "cluster_type envoy.clusters.dns",
    "Cluster.use_tcp_for_dns_lookups": "cluster_type envoy.clusters.dns",
    "Cluster.http2_protocol_options": "typed_extension_protocol_options",
    "Cluster.http_protocol_options": "typed_extension_protocol_options",
    "Cluster.common_http_protocol_options": "typed_extension_protocol_options",
    "Cluster.track_timeout_budgets": "track_cluster_stats",
    "HeaderMatcher.exact_match": "string_match",
    "HeaderMatcher.prefix_match": "string_match",
    "ConfigSource.path": "path_config_source",
    "ConfigSource.resource_api_version": "V3",
    "Admin.access_log_path": "access_log",
    "Bootstrap.tracing": "the tracing.provider of the HTTP connection manager",
    "CertificateValidationContext.match_subject_alt_names": "match_typed_subject_alt_names",
    "HeaderValueOption.append": "append_action",
    "FilterChain.use_proxy_proto": "the listener filter proxy_protocol",
    "Listener.reuse_port": "enable_reuse_port",
}


def deprecations(outcome: Outcome) -> list[str]:
    """Envoy's warnings about deprecated fields, values and settings, each once."""
    return list(dict.fromkeys(text for text in outcome.messages("warning") if "deprecated" in text.lower()))


def _deprecation(match: re.Match[str], count: int) -> str:
    option = match["option"]
    replacement = _REPLACEMENTS.get(".".join(option.split(".")[-2:]))
    what = f"the value {match['value']} of {option}" if match["value"] else option
    return (
        f"deprecated: {what}"
        + (f" ({count} times)" if count > 1 else "")
        + (f"; use {replacement}" if replacement else "; see the version history in Envoy's documentation")
    )


def _uses(tree: Map, top: Mount, secret: str) -> bool:
    """Whether a listener or cluster refers to the static secret."""
    return any(block.get("name") == secret for _path, block in walk(_at(tree, top.path)))
