# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order in which a running mesh takes a new configuration without losing a request.

A proxy's folder goes from old to new in six steps; at every step all proxies finish before the next begins:

1. clusters that are new
2. listeners that are new, with their routes
3. clusters that changed, endpoints and certificates
4. routes and listeners that changed; a port that one listener takes over from another
5. listeners that are gone
6. clusters and files that are gone

So a request never meets a route without its cluster, nor a caller a port that nobody listens on yet.
Source: Envoy docs, "xDS protocol", eventual consistency considerations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml, names, ordering
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import (
    BOOTSTRAP_FILE,
    CLUSTERS_FILE,
    LISTENERS_FILE,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.files import response

Files = dict[str, str]
Records = dict[str, list[str]]


def steps(old: Files, new: Files) -> list[Files]:
    """The folder's whole content after each step; the last one is ``new``.

    The bootstrap is read at start only and changes with the first step.
    """
    if old == new:
        return []
    if CLUSTERS_FILE not in new:
        return [dict(new)]
    before, after = _content(old), _content(new)
    known = [(old, before), (new, after)]
    *early, _last = ordering.every_step(before, after)
    return [*(_folder(step, known) for step in early), dict(new)]


def _content(files: Files) -> ordering.Resources:
    """A folder as resources; what is neither clusters, listeners nor routes goes with the clusters, as endpoints do."""
    rest = files.keys() - {BOOTSTRAP_FILE, CLUSTERS_FILE, LISTENERS_FILE}
    return {
        ordering.CLUSTERS: _resources(files, CLUSTERS_FILE),
        ordering.ENDPOINTS: {name: files[name] for name in files if name in rest and not _is_routes(name)},
        ordering.LISTENERS: _resources(files, LISTENERS_FILE),
        ordering.ROUTES: {name: files[name] for name in files if name in rest and _is_routes(name)},
    }


def _folder(step: ordering.Resources, known: list[tuple[Files, ordering.Resources]]) -> Files:
    """A step as texts; those of the ``known`` folders, old and new, stay where they say the same."""
    made = _xds(step[ordering.CLUSTERS], step[ordering.LISTENERS])
    for file, kind in ((CLUSTERS_FILE, ordering.CLUSTERS), (LISTENERS_FILE, ordering.LISTENERS)):
        # Another order would be another step.
        same = [files[file] for files, content in known if step[kind] == content[kind] and file in files]
        made[file] = same[0] if same else made[file]
    return {**step[ordering.ENDPOINTS], **step[ordering.ROUTES], **made, BOOTSTRAP_FILE: known[-1][0][BOOTSTRAP_FILE]}


def held(old: Files, new: Files) -> Files:
    """The new files for a proxy that is to be replaced, and still runs with what it was started with.

    What is new is there already, nothing is gone yet. The application's own side (its cluster, and the egress listeners
    it calls with their routes) is as the application knows it. What uses a certificate that is new has to wait, for a
    pod has those it was started with; and a listener that its kubelet asks goes on to answer as it is asked.
    """
    if CLUSTERS_FILE not in old or CLUSTERS_FILE not in new:
        return dict(new)
    certificates = {name for name in new.keys() - old.keys() if names.is_secret_file(name)}
    clusters_old, clusters_new = _resources(old, CLUSTERS_FILE), _resources(new, CLUSTERS_FILE)
    listeners_old, listeners_new = _resources(old, LISTENERS_FILE), _resources(new, LISTENERS_FILE)
    later = {name for name, item in clusters_new.items() if _names_any(item, certificates)}
    clusters_new = _without(clusters_new, later)
    listeners_new = _without(listeners_new, ordering.taking_over(listeners_new, listeners_old))
    listeners_new = {
        name: item
        for name, item in listeners_new.items()
        if not _names_any(item, certificates) and _answer(item) == _answer(listeners_old.get(name, item))
    }
    called = {name: item for name, item in listeners_old.items() if names.is_egress(name)}
    routes = {file: old[file] for file in map(names.routes_file, called) if file in old}
    waiting = later - clusters_old.keys()
    routes |= {
        file: old[file] for file in old.keys() & new.keys() if _is_routes(file) and _routes_to(new[file], waiting)
    }
    application = {name: item for name, item in clusters_old.items() if name == names.APPLICATION_CLUSTER}
    clusters = {**clusters_old, **clusters_new, **application}
    listeners = {**listeners_old, **listeners_new, **called}
    files = {name: text for name, text in {**old, **new}.items() if name not in certificates}
    return {**files, **_xds(clusters, listeners), **routes}


def _names_any(item: Any, files: set[str]) -> bool:
    """Whether a part of a configuration reads one of these files of the proxy's folder."""
    return any(text.rpartition("/")[2] in files for text in _texts(item))


def _answer(listener: dict[str, Any]) -> Any:
    """How a listener answers a kubelet: its health check, and whether with TLS."""
    chains = listener.get("filter_chains", [])
    filters = [each for chain in chains for each in chain.get("filters", [])]
    http = [each for item in filters for each in item.get("typed_config", {}).get("http_filters", [])]
    checks = [each for each in http if each.get("name") == names.HEALTH_FILTER]
    return checks, bool(checks) and ["transport_socket" in chain for chain in chains]


def _routes_to(text: str, clusters: set[str]) -> bool:
    return bool(clusters) and not clusters.isdisjoint(_texts(envoy_yaml.load(text)))


def _texts(item: Any) -> Iterator[str]:
    values = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    for value in values:
        yield from [value] if isinstance(value, str) else _texts(value)


def zone_steps(old: Records, new: Records) -> tuple[Records, Records]:
    """DNS records before and while proxies change over: nothing that was there is missing yet.

    Before: the names nobody has asked for. While: every name as it will be, and those that go, as they were.
    """
    return {**new, **old}, {**old, **new}


def _is_routes(name: str) -> bool:
    return name.startswith("rds.")


def _resources(files: Files, name: str) -> dict[str, Any]:
    """``{resource name: resource}`` of a discovery file; nothing where there is none or it cannot be read."""
    try:
        data = envoy_yaml.load(files.get(name, "")) or {}
        return {item["name"]: item for item in data.get("resources", [])}
    except (ValueError, TypeError, KeyError, AttributeError, envoy_yaml.YAMLError):
        return {}


def _without(resources: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: item for name, item in resources.items() if name not in names}


def _xds(clusters: dict[str, Any], listeners: dict[str, Any]) -> Files:
    return {
        CLUSTERS_FILE: response(list(clusters.values())),
        LISTENERS_FILE: response(list(listeners.values())),
    }
