# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make before break: the order in which a proxy's resources go from old to new without losing a request.

1. clusters that are new, with their endpoints
2. listeners that are new, with their routes
3. clusters and endpoints that changed
4. routes and listeners that changed; a port that one listener takes over from another
5. listeners that are gone
6. clusters, endpoints and routes that are gone

So a request never meets a route without its cluster. Where all proxies finish a step before the next begins, no caller
meets a port that nobody listens on yet.
Source: Envoy docs, "xDS REST and gRPC protocol", eventual consistency considerations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

CLUSTERS, ENDPOINTS, LISTENERS, ROUTES = KINDS = ("clusters", "endpoints", "listeners", "routes")

Items = Mapping[str, Any]
"""Resources of one kind by name. Nothing but a listener's port is looked at, the rest is compared only."""
Resources = dict[str, dict[str, Any]]
"""Resources of a proxy by kind and name; a kind without resources may be absent."""

STEPS = 6
"""How many steps every change has, of which most do nothing."""


def listener_port(listener: dict[str, Any]) -> Any:
    """The port of a listener as Envoy's files have it."""
    return listener.get("address", {}).get("socket_address", {}).get("port_value")


def taking_over(mine: Items, theirs: Items, port: Callable[[Any], Any] = listener_port) -> set[str]:
    """Listeners that are only mine, with a port that is also that of a listener which is only theirs."""
    ports = {port(item) for name, item in theirs.items() if name not in mine}
    return {name for name, item in mine.items() if name not in theirs and port(item) in ports}


def every_step(
    old: Mapping[str, Items], new: Mapping[str, Items], port: Callable[[Any], Any] = listener_port
) -> list[Resources]:
    """The whole content after each of the six steps, so that several proxies can go in step.

    The last has what ``new`` has; ``port`` tells a listener's port, None where it has none.
    """
    was = {kind: old.get(kind, {}) for kind in KINDS}
    will = {kind: new.get(kind, {}) for kind in KINDS}
    # Envoy refuses two listeners with one address.
    waiting = taking_over(will[LISTENERS], was[LISTENERS], port)
    replaced = taking_over(was[LISTENERS], will[LISTENERS], port)
    added = {kind: {**will[kind], **was[kind]} for kind in KINDS}
    changed = {kind: {**was[kind], **will[kind]} for kind in KINDS}
    added[LISTENERS] = {**_without(will[LISTENERS], waiting), **was[LISTENERS]}
    changed[LISTENERS] = {**_without(was[LISTENERS], replaced), **will[LISTENERS]}

    clusters_added = {kind: added[kind] if kind in (CLUSTERS, ENDPOINTS) else dict(was[kind]) for kind in KINDS}
    clusters_changed = {kind: (changed if kind in (CLUSTERS, ENDPOINTS) else added)[kind] for kind in KINDS}
    listeners_gone = {**changed, LISTENERS: dict(will[LISTENERS])}
    gone = {kind: dict(will[kind]) for kind in KINDS}
    return [clusters_added, added, clusters_changed, changed, listeners_gone, gone]


def steps(old: Resources, new: Resources) -> list[Resources]:
    """The whole content after each step that changes something; the last one is ``new``. None where nothing changes."""
    found: list[Resources] = []
    last = {kind: old.get(kind, {}) for kind in KINDS}
    for step in every_step(old, new):
        if step != last:
            found.append(step)
        last = step
    return [*found[:-1], new] if found else []


def _without(items: Items, names: set[str]) -> dict[str, Any]:
    return {name: item for name, item in items.items() if name not in names}
