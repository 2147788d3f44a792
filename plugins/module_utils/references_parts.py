# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that several sections of an inventory share: names, ports, patches, and routes that hide each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import words
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import HEADER_TESTS, PATHS

Item = dict[str, Any]


def known_service(path: str, name: str, known: Iterable[str], key: str = "service") -> Iterator[str]:
    if name not in known:
        yield f"{path}.{key}: {name!r} is not in mesh_services (known: {', '.join(sorted(known)) or 'none'})"


def repeated(path: str, values: list[Any], key: str = "") -> Iterator[str]:
    for value, count in Counter(values).items():
        if count > 1:
            index = len(values) - 1 - values[::-1].index(value)
            yield f"{path}[{index}]{key}: {value!r} appears {count} times; once is enough"


def one_owner(path: str, ports: Iterable[tuple[str, int]]) -> Iterator[str]:
    """One address, so one owner a port."""
    owners: dict[int, str] = {}
    for key, port in ports:
        if port in owners:
            yield f"{path}.{key}: {port} is already {path}.{owners[port]}; give another port"
        owners.setdefault(port, key)


def idle_patches(path: str, item: Item, idle: dict[str, str]) -> Iterator[str]:
    """``idle``: the levels of a patch that nothing is generated for, and why."""
    for level, reason in idle.items():
        if (item["envoy_patch"] or {}).get(level):
            yield f"{path}.envoy_patch.{level}: has no effect; {reason}"


def reachable(path: str, routes: list[Item]) -> Iterator[str]:
    """Routes in order, none of which may be hidden by one before it."""
    earlier: dict[tuple[str, str], list[int]] = {}
    for index, route in enumerate(routes):
        yield from match(f"{path}[{index}]", route, path_needed=True)
        near = sorted(position for place in _covering_places(route) for position in earlier.get(place, ()))
        for position in near:
            if covers(routes[position], route):
                yield f"{path}[{index}]: is never reached; {path}[{position}] matches all of it; put it before that one"
                break
        for place in _places(route):
            earlier.setdefault(place, []).append(index)


def _places(match: Item) -> Iterator[tuple[str, str]]:
    """Where a match is found again without a look at all others, which would take long for thousands."""
    return ((key, match[key]) for key in PATHS if match[key] is not None)


def _covering_places(match: Item) -> Iterator[tuple[str, str]]:
    """Where a match that covers this one can be: one of the same path, or of a prefix of it."""
    text = f"/{match['grpc']}/" if match["grpc"] else match["prefix"] or match["path"] or ""
    prefixes = {"/", *(text[:length] for length in range(len(text) + 1))}
    return chain(
        (place for place in _places(match) if place[0] != "prefix"), (("prefix", prefix) for prefix in prefixes)
    )


def match(path: str, settings: Item, path_needed: bool) -> Iterator[str]:
    given = [key for key in PATHS if settings[key] is not None]
    if len(given) > 1 or (path_needed and not given):
        yield f"{path}: has {words(given) if given else 'no path'}; give exactly one of {words(PATHS)}"
    yield from header_tests(f"{path}.headers", settings["headers"] or [])


def header_tests(path: str, headers: list[Item]) -> Iterator[str]:
    for index, header in enumerate(headers):
        tests = [key for key in HEADER_TESTS if header[key] is not None]
        if len(tests) != 1:
            found = words(tests) if tests else "no test"
            yield f"{path}[{index}]: has {found}; give exactly one of {words(HEADER_TESTS)}"


def covers(earlier: Item, later: Item) -> bool:
    """Whether every request of the later route already matches the earlier one."""
    if earlier["headers"]:
        return False
    if earlier["prefix"] is None:
        return any(earlier[key] is not None and earlier[key] == later[key] for key in PATHS)
    if later["grpc"]:
        return f"/{later['grpc']}/".startswith(earlier["prefix"])
    return bool((later["prefix"] or later["path"] or "").startswith(earlier["prefix"]) or earlier["prefix"] == "/")


def with_path(match: Item | None) -> Item:
    """A match that names no path is one of any path."""
    match = match or dict.fromkeys((*PATHS, "headers"))
    return match if any(match[key] is not None for key in PATHS) else {**match, "prefix": "/"}
