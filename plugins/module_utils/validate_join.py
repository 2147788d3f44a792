# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Joins the config folder of one Envoy into one static config that ``envoy --mode validate`` really reads.

``--mode validate`` does not look into the files of file-based LDS, CDS, RDS, EDS and SDS, so broken ones pass. ``join``
puts their resources where a static config has them, remembers where each came from (``Mount``), and checks on the way
what Envoy checks only when it serves: names that must match, files that must exist, clusters that are pointed at.

Scalars stay as written. Whether an unquoted ``n``, ``010`` or ``1.5`` is text, a number or a boolean differs between
YAML parsers and between versions of Envoy; ``write_yaml`` writes it without quotes again, and Envoy itself decides.
One difference remains: here libyaml finds the structure, in the running Envoy yaml-cpp does. Repeated keys, several
documents and keys that are no scalars, which yaml-cpp takes silently, are refused here.
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring
from typing import Any

try:
    import yaml
except ImportError:  # the module tells the user
    HAS_YAML = False
    _BASE: Any = object
else:
    HAS_YAML = True
    _BASE = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Map = dict[str, Any]
Path = tuple["str | int", ...]

BOOTSTRAP = "bootstrap.yaml"
NOWHERE = "/dev/null"  # file-based xDS must name an existing file even where nobody reads it
ENDINGS = (".yaml", ".yml", ".json")


# ----------------------------------------------------------------------------------------- YAML with scalars as written
class Plain(str):
    """A scalar without quotes: Envoy decides whether it is text, a number, a boolean or null."""

    __slots__ = ()


class YamlError(ValueError):
    """Not YAML that Envoy can read; the text names the line."""


FALSE = Plain("false")
_QUOTED = "quoted"
_BARE = re.compile(r"[-+.~\w]*\w[-+.~\w]*|~?", re.ASCII)  # reads the same inside {} and [], so it needs no quotes there


class _ScalarsAsWritten(_BASE):  # type: ignore[misc]
    """Keeps PyYAML from deciding types: a scalar's tag only says whether it was quoted."""

    def resolve(self, kind: Any, _value: Any, implicit: Any) -> str:
        return _QUOTED if kind is yaml.ScalarNode and not implicit[0] else "plain"

    def descend_resolver(self, *_path: Any) -> None:
        """Called by the composer; there are no rules by path."""

    ascend_resolver = descend_resolver


def read_yaml(text: str) -> Any:
    """One YAML document as dicts, lists and strings (those without quotes as ``Plain``). Raises YamlError."""
    try:
        node = _ScalarsAsWritten(text).get_single_node()
        return Plain() if node is None else _construct(node)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlError(f"is not YAML: {place}{exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        raise YamlError(f"is not YAML: {' '.join(str(exc).split())}") from exc
    except RecursionError as exc:
        raise YamlError("is nested too deeply, or an alias stands within its own anchor") from exc


def _construct(node: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        value = str(node.value)
        return Plain(value) if node.tag != _QUOTED and _BARE.fullmatch(value) else value
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item) for item in node.value]
    result: Map = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise YamlError(f"line {line}: a list or mapping cannot be a key")
        if key.value in result:
            raise YamlError(f"line {line}: the key {key.value!r} is there twice; Envoy would drop the first")
        if key.tag != "!ignore":  # Envoy's tag for keys that only hold anchors
            result[str(key.value)] = _construct(value)
    return result


def write_yaml(value: Any) -> str:
    """The opposite of ``read_yaml``, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join([f"{encode_basestring(key)}: {write_yaml(item)}" for key, item in value.items()]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([write_yaml(item) for item in value]) + "]"
    if isinstance(value, Plain):
        return str(value) or "~"
    text: str = encode_basestring(value)
    return text


# ------------------------------------------------------------------------------------------------------ trees and paths
def as_map(value: Any) -> Map:
    """The mapping; an empty one for anything else, whose type is for Envoy to refuse."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The list; an empty one for anything else, whose type is for Envoy to refuse."""
    return value if isinstance(value, list) else []


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Map]]:
    """Every mapping with its path, outer ones first. What the caller puts into a mapping it got is walked too."""
    if isinstance(value, dict):
        yield path, value
    items = list(value.items()) if isinstance(value, dict) else enumerate(as_list(value))
    for step, item in items:
        if isinstance(item, (dict, list)):
            yield from walk(item, (*path, step))


def show_path(path: Path) -> str:
    """``("routes", 0, "match")`` as ``routes[0].match``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


# -------------------------------------------------------------------------------------------------- what a join returns
@dataclass(frozen=True)
class Kind:
    """A kind of xDS resource: its protobuf type, and the field that holds its name."""

    type: str
    name_key: str = "name"


LISTENER = Kind("envoy.config.listener.v3.Listener")
CLUSTER = Kind("envoy.config.cluster.v3.Cluster")
ROUTES = Kind("envoy.config.route.v3.RouteConfiguration")
ENDPOINTS = Kind("envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name")
SECRET = Kind("envoy.extensions.transport_sockets.tls.v3.Secret")
SOURCE = Kind("envoy.config.core.v3.ConfigSource")


@dataclass(frozen=True)
class Mount:
    """A part of the joined config (``path``), and where its author wrote it: ``where`` is such as resources[1]."""

    path: Path
    kind: Kind | None
    file: str
    where: str = ""
    name: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.label)))

    @property
    def label(self) -> str:
        return f"{self.where} ({self.name})" if self.name else self.where


@dataclass(frozen=True)
class Problem:
    """One mistake: the file, the place in it (either may be empty), and what is wrong."""

    file: str
    where: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.file, self.where, self.reason)))


@dataclass
class Joined:
    """The static config, where its parts come from, and what is known to be wrong.

    ``broken``: listeners and clusters to leave out; Envoy would report again what ``problems`` says better.
    ``unchecked``: references to files that are not joined.
    """

    tree: Map = field(default_factory=dict)
    mounts: list[Mount] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)
    unchecked: list[str] = field(default_factory=list)

    def mount_at(self, path: Path) -> Mount:
        """The innermost part that holds the path; the bootstrap when it is in none."""
        holders = [mount for mount in self.mounts if path[: len(mount.path)] == mount.path]
        return max(holders, key=lambda mount: len(mount.path), default=Mount((), None, BOOTSTRAP))

    def problem_at(self, path: Path, reason: str) -> Problem:
        """The problem, its place as the author of the files knows it."""
        mount = self.mount_at(path)
        inner = show_path(path[len(mount.path) :])
        separator = "." if mount.kind is SOURCE else ": "
        return Problem(mount.file, separator.join(filter(None, (mount.label, inner))), reason)


def join(files: Mapping[str, Any]) -> Joined:
    """The static config of one proxy's folder; what is wrong is in ``problems``.

    ``files``: ``{file name: YAML text}``, or a YamlError in place of a text that cannot be read.
    """
    joined = _Join(files).joined
    joined.problems = list(dict.fromkeys(joined.problems))
    return joined


# ---------------------------------------------------------------------------------------------------------- the joining
_SECTIONS = (("clusters", "cds_config", CLUSTER), ("listeners", "lds_config", LISTENER))
_RESPONSE_KEYS = {"version_info", "resources", "type_url", "nonce", "canary", "control_plane", "resource_errors"}
_SECRET_FIELDS = {  # the field that refers to a secret: what the secret must have
    "tls_certificate_sds_secret_configs": "tls_certificate",
    "validation_context_sds_secret_config": "validation_context",
    "session_ticket_keys_sds_secret_config": "session_ticket_keys",
}
_SNAKE_CASE_ONLY = {  # fields the join reads; protobuf would take their camelCase names too
    *("staticResources", "dynamicResources", "ldsConfig", "cdsConfig", "configSource", "pathConfigSource"),
    *("routeConfig", "routeConfigName", "edsClusterConfig", "edsConfig", "serviceName", "sdsConfig"),
    *("loadAssignment", "clusterName", "virtualHosts", "weightedClusters", "requestMirrorPolicies", "envoyGrpc"),
}


class _Join:
    """The steps of ``join``, in order; each adds to ``joined``."""

    def __init__(self, files: Mapping[str, Any]) -> None:
        self.joined = Joined()
        self.files = files
        self.clusters: set[str] | None = None  # None: not all of them are known
        self.folders: set[str] = set()
        self.sources: dict[str, tuple[Map, Path]] = {}
        self.documents = dict(self._read())
        if BOOTSTRAP in self.documents:
            self.joined.tree = self.documents[BOOTSTRAP]
            self._mount_resources()
            self._check_names()
            for path, block in walk(self.joined.tree):
                self._inline(path, block)
                self._check_references(path, block)
            self._check_sources()
        elif BOOTSTRAP not in files:
            self._problem_in(BOOTSTRAP, "", f"is missing (files: {some(files)})")

    def _problem(self, path: Path, reason: str) -> None:
        self.joined.problems.append(self.joined.problem_at(path, reason))

    def _problem_in(self, file: str, where: str, reason: str) -> None:
        self.joined.problems.append(Problem(file, where, reason))

    # -- files
    def _read(self) -> Iterator[tuple[str, Map]]:
        for file, text in sorted(self.files.items()):
            if not file.endswith(ENDINGS):
                continue
            document = self._document(file, text)
            if document is not None and not self._camel_case(file, document):
                yield file, document

    def _document(self, file: str, text: Any) -> Map | None:
        try:
            if not isinstance(text, str):
                raise text if isinstance(text, YamlError) else YamlError("must be text")
            document = read_yaml(text)
            if isinstance(document, dict):
                return document
            raise YamlError("is empty" if document == "" else "must be a mapping")
        except YamlError as exc:
            self._problem_in(file, "", str(exc))
            return None

    def _camel_case(self, file: str, document: Map) -> bool:
        found = [(*path, key) for path, block in walk(document) for key in _SNAKE_CASE_ONLY.intersection(block)]
        for path in found:
            snake = re.sub("[A-Z]", lambda match: f"_{match.group().lower()}", str(path[-1]))
            self._problem_in(file, show_path(path), f"write {snake}, as in Envoy's documentation")
        return bool(found)

    def _file_of(self, path: Path, source: Any) -> str:
        """Name of the file of this folder that a ConfigSource refers to; empty when it cannot be used."""
        target = source_path(source)
        file = posixpath.basename(target)
        if file not in self.files:
            self._problem(path, f"refers to {target}, but there is no {file} (files: {some(self.files)})")
        return file if file in self.documents else ""

    def _resources(self, file: str, kind: Kind) -> Iterator[tuple[str, Map]]:
        """The resources of a DiscoveryResponse and their places; their @type is checked and taken off."""
        document = self.documents[file]
        for key in sorted(document.keys() - _RESPONSE_KEYS):
            self._problem_in(file, "", f"unknown field {key!r} (a DiscoveryResponse has version_info and resources)")
        resources = document.get("resources", [])
        if not isinstance(resources, list):
            self._problem_in(file, "resources", "must be a list")
        for index, resource in enumerate(as_list(resources)):
            where, found = f"resources[{index}]", as_map(resource).get("@type", "missing")
            if found == f"type.googleapis.com/{kind.type}":
                yield where, {key: value for key, value in resource.items() if key != "@type"}
            else:
                self._problem_in(file, where, f"@type is {found}, must be type.googleapis.com/{kind.type}")

    def _only_resource(self, file: str, kind: Kind, name: str, path: Path) -> Mount | None:
        """The one resource of an RDS, EDS or SDS file; ``path`` is what asks for it, by ``name``."""
        count = len(as_list(self.documents[file].get("resources", [])))
        found = list(self._resources(file, kind))
        if count != 1:
            self._problem_in(file, "", f"has {count} resources, must have one ({name}): Envoy refuses all others")
        if count != 1 or not found:
            return None
        where, resource = found[0]
        mount = Mount(path, kind, file, where, _name(resource, kind.name_key))
        if mount.name != name:
            asks = self.joined.mount_at(path)
            self._problem_in(file, where, f"{kind.name_key} is {mount.name or 'missing'}, but {asks} asks for {name}")
        return mount

    # -- CDS and LDS
    def _mount_resources(self) -> None:
        tree = self.joined.tree
        dynamic = as_map(tree.get("dynamic_resources"))
        static = self._made((), tree, "static_resources", {})
        complete = "ads_config" not in dynamic
        for section, key, kind in _SECTIONS:
            resources = self._made(("static_resources",), static, section, [])
            for index, resource in enumerate(resources):
                path = ("static_resources", section, index)
                self.joined.mounts.append(Mount(path, kind, BOOTSTRAP, show_path(path), _name(resource)))
            if source_path(dynamic.get(key)):
                all_read = self._append(section, kind, resources, key)
                dynamic[key] = _neutral(dynamic[key])
            else:
                all_read = key not in dynamic
            complete &= all_read or section != "clusters"
        if complete:
            self.clusters = {_name(cluster) for cluster in static["clusters"]}

    def _made(self, path: Path, parent: Map, key: str, empty: Any) -> Any:
        """The mapping or list at ``key``; a new one when there is none."""
        value = parent.get(key, "")
        if not isinstance(value, type(empty)):
            if value != "":
                self._problem((*path, key), "must be a mapping" if isinstance(empty, dict) else "must be a list")
            parent[key] = empty
        return parent[key]

    def _append(self, section: str, kind: Kind, resources: list[Any], key: str) -> bool:
        """Adds the resources of LDS or CDS; False when some of them cannot be used."""
        before = len(self.joined.problems)
        source = self.joined.tree["dynamic_resources"][key]
        self.folders.add(posixpath.dirname(source_path(source)))
        file = self._file_of(("dynamic_resources", key), source)
        for where, resource in self._resources(file, kind) if file else ():
            path = ("static_resources", section, len(resources))
            resources.append(resource)
            self.joined.mounts.append(Mount(path, kind, file, where, _name(resource)))
        return bool(file) and len(self.joined.problems) == before

    # -- names
    def _check_names(self) -> None:
        first: dict[tuple[Kind | None, str], Mount] = {}
        for mount in filter(lambda mount: mount.name, self.joined.mounts):
            resource = self.joined.tree["static_resources"][mount.path[1]][mount.path[2]]
            other = first.setdefault((mount.kind, mount.name), mount)
            assignment = as_map(resource.get("load_assignment"))
            if other is not mount:
                self._problem(mount.path, f"the name is taken by {other.file}: {other.where}")
                resource["name"] = f"{mount.name} ({mount})"  # so that Envoy looks at the rest of both
            if mount.kind is CLUSTER and assignment and assignment.get("cluster_name") != mount.name:
                path = (*mount.path, "load_assignment", "cluster_name")
                self._problem(path, f"is {assignment.get('cluster_name', 'missing')}, must be {mount.name}")

    # -- RDS, EDS and SDS, wherever they are used
    def _inline(self, path: Path, block: Map) -> None:
        if "rds" in block and "route_config" not in block:
            self._inline_routes(path, block)
        if block.get("type") == "EDS" and self.joined.mount_at(path).path == path:
            self._inline_endpoints(path, block)
        if "sds_config" in block:
            self._inline_secret(path, block)

    def _inline_routes(self, path: Path, manager: Map) -> None:
        rds, at = as_map(manager["rds"]), (*path, "rds")
        name = rds.get("route_config_name", "")
        if not self._keep_source((*at, "config_source"), rds, {"route_config_name"}):
            return
        manager["route_config"] = {"name": name}
        self._put((*path, "route_config"), manager, ROUTES, self._file_of(at, rds["config_source"]), name)
        del manager["rds"]

    def _inline_endpoints(self, path: Path, cluster: Map) -> None:
        eds, at = as_map(cluster.get("eds_cluster_config")), (*path, "eds_cluster_config")
        name = eds.get("service_name") or self.joined.mount_at(path).name
        if not self._keep_source((*at, "eds_config"), eds, {"service_name"}):
            return
        cluster["load_assignment"] = {"cluster_name": name}
        self._put((*path, "load_assignment"), cluster, ENDPOINTS, self._file_of(at, eds["eds_config"]), name)
        cluster["type"] = "STATIC"
        del cluster["eds_cluster_config"]

    def _put(self, path: Path, parent: Map, kind: Kind, file: str, name: str) -> None:
        """Puts a file's only resource at ``path``, the last step of which is a key of ``parent``."""
        mount = self._only_resource(file, kind, name, path) if file else None
        if mount:
            resource = as_list(self.documents[file]["resources"])[0]
            parent[str(path[-1])] = {key: value for key, value in resource.items() if key != "@type"}
            self.joined.mounts.append(mount)

    def _inline_secret(self, path: Path, reference: Map) -> None:
        """A secret of this folder becomes a static one named after its file; others stay as they are."""
        target = source_path(reference["sds_config"])
        file = posixpath.basename(target)
        if not target or (file not in self.files and posixpath.dirname(target) not in self.folders):
            return
        self._keep_source((*path, "sds_config"), reference, {"name"})
        name = reference.get("name", "")
        if not (self._file_of(path, reference["sds_config"]) and self._add_secret(path, file, name)):
            self.joined.broken.add(path[:3])
        del reference["sds_config"]
        reference["name"] = file

    def _add_secret(self, path: Path, file: str, name: str) -> bool:
        """True when Envoy can look at the secret."""
        found = self._only_resource(file, SECRET, name, path)
        if not found:
            return False
        secret = self.documents[file]["resources"][0]
        field_name = next((step for step in reversed(path) if isinstance(step, str)), "")
        wanted = _SECRET_FIELDS.get(field_name, "name")
        if wanted not in secret:
            user = self.joined.mount_at(path)
            self._problem_in(file, found.label, f"has no {wanted}, but {user} uses it in {field_name}")
            return False
        if not any(mount.kind is SECRET and mount.file == file for mount in self.joined.mounts):
            secrets = self._made(("static_resources",), self.joined.tree["static_resources"], "secrets", [])
            at = ("static_resources", "secrets", len(secrets))
            secrets.append({**{key: value for key, value in secret.items() if key != "@type"}, "name": file})
            self.joined.mounts.append(Mount(at, SECRET, file, found.where, found.name))
        return True

    def _keep_source(self, path: Path, parent: Map, others: set[str]) -> bool:
        """Notes a ConfigSource that is replaced, so that Envoy can check it; False when it is no file."""
        source = as_map(parent.get(str(path[-1])))
        if not source_path(source):
            return False
        known = {*others, str(path[-1])}
        for key in sorted(parent.keys() - known):
            self._problem(path[:-1], f"unknown field {key!r} (known: {', '.join(sorted(known))})")
        neutral = _neutral(source)
        self.sources.setdefault(write_yaml(neutral), (neutral, path))
        return True

    def _check_sources(self) -> None:
        """One more cluster for each different ConfigSource that was replaced."""
        clusters = self.joined.tree["static_resources"]["clusters"]
        for neutral, origin in self.sources.values():
            place = self.joined.problem_at(origin, "")
            at = ("static_resources", "clusters", len(clusters), "eds_cluster_config", "eds_config")
            name = f"config source {len(clusters)}"
            clusters.append({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": neutral}})
            self.joined.mounts.append(Mount(at, SOURCE, place.file, place.where))

    # -- references
    def _check_references(self, path: Path, block: Map) -> None:
        target = source_path(block) if "path_config_source" in block else NOWHERE
        if target != NOWHERE and path[-1:] != ("sds_config",):
            self.joined.unchecked.append(str(self.joined.problem_at(path, f"{target} is not validated")))
        if self.clusters is None and "virtual_hosts" in block:
            block["validate_clusters"] = FALSE
        if self.clusters is None or block.get("validate_clusters") == "false":
            return
        before = len(self.joined.problems)
        for inner, name in _cluster_references(block):
            if isinstance(name, str) and name and name not in self.clusters:
                self._problem((*path, *inner), f"there is no cluster {name} (known: {some(self.clusters)})")
        if "virtual_hosts" in block and len(self.joined.problems) > before:
            block["validate_clusters"] = FALSE  # Envoy would report the first of them again


# -------------------------------------------------------------------------------------------------------------- helpers
def source_path(source: Any) -> str:
    """The file of a ConfigSource (``path_config_source.path``, or the deprecated ``path``); empty when it is none."""
    source = as_map(source)
    path = as_map(source.get("path_config_source")).get("path") or source.get("path")
    return path if isinstance(path, str) else ""


def _neutral(source: Map) -> Map:
    """The same ConfigSource with files that exist everywhere."""
    result = copy.deepcopy(source)
    by_path = as_map(result.get("path_config_source"))
    for holder in (result, by_path):
        if "path" in holder:
            holder["path"] = NOWHERE
    if "path" in as_map(by_path.get("watched_directory")):
        by_path["watched_directory"]["path"] = posixpath.dirname(NOWHERE)
    return result


def _name(resource: Any, key: str = "name") -> str:
    name = as_map(resource).get(key)
    return name if isinstance(name, str) else ""


def _cluster_references(block: Map) -> Iterator[tuple[Path, Any]]:
    """Path and name of every cluster a mapping refers to; outside of routes Envoy takes unknown ones silently."""
    if "virtual_hosts" in block:
        yield from _route_references(block)
    elif str(block.get("@type")).endswith("tcp_proxy.v3.TcpProxy"):
        yield from _targets((), block)
    elif "envoy_grpc" in block:
        yield ("envoy_grpc", "cluster_name"), as_map(block["envoy_grpc"]).get("cluster_name")
    elif "uri" in block and "cluster" in block:
        yield ("cluster",), block["cluster"]


def _route_references(routes: Map) -> Iterator[tuple[Path, Any]]:
    """Source: Envoy docs, "HTTP route components (proto)"."""
    yield from _mirrors((), routes)
    for index, host in enumerate(as_list(routes.get("virtual_hosts"))):
        yield from _mirrors(("virtual_hosts", index), as_map(host))
        for number, route in enumerate(as_list(as_map(host).get("routes"))):
            action = as_map(as_map(route).get("route"))
            path: Path = ("virtual_hosts", index, "routes", number, "route")
            yield from _targets(path, action)
            yield from _mirrors(path, action)


def _targets(path: Path, action: Map) -> Iterator[tuple[Path, Any]]:
    yield (*path, "cluster"), action.get("cluster")
    for index, cluster in enumerate(as_list(as_map(action.get("weighted_clusters")).get("clusters"))):
        yield (*path, "weighted_clusters", "clusters", index, "name"), as_map(cluster).get("name")


def _mirrors(path: Path, block: Map) -> Iterator[tuple[Path, Any]]:
    for index, policy in enumerate(as_list(block.get("request_mirror_policies"))):
        yield (*path, "request_mirror_policies", index, "cluster"), as_map(policy).get("cluster")


def some(names: Collection[str]) -> str:
    """At most ten of the names, sorted."""
    shown = sorted(names)[:10]
    rest = len(names) - len(shown)
    return (", ".join(shown) + (f" and {rest} more" if rest else "")) or "none"
