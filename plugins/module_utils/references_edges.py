# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wrong with an edge: settings that do not go together, or not with the service that is called.

Checks yield text, nobody raises. ``settings`` is the entry of an upstream, a route or the service itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import services
from ansible_collections.sidecar.mesh.plugins.module_utils.check import words
from ansible_collections.sidecar.mesh.plugins.module_utils.references_parts import header_tests, known_service
from ansible_collections.sidecar.mesh.plugins.module_utils.requests import health_path
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import (
    HASHING_POLICIES,
    POLICY,
    SLOW_STARTING_POLICIES,
    STATUS_CONDITION,
    TCP_POLICY,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Item = dict[str, Any]
Known = dict[str, Any]


def edge(path: str, settings: Item, callee: Item, caller: Item, mesh: Item) -> Iterator[str]:
    """What a caller, or the service itself (as callee and caller), says about the way to a service."""
    yield from _hashing(path, settings, callee)
    yield from _health_check(path, settings["health_check"], callee)
    yield from _discovery(path, settings, callee, mesh)
    yield from _slow_start(path, settings, callee)
    yield from _connection(path, settings, callee)
    yield from _outliers(f"{path}.outlier_detection", settings["outlier_detection"], callee)
    if callee["zone_aware"] if settings["zone_aware"] is None else settings["zone_aware"]:
        yield from _zones(path, settings, callee, caller, mesh)


def policy(path: str, settings: Item, callee: Item, known: Known) -> Iterator[str]:
    """What requests to a service are told."""
    if not services.is_http(callee):
        for key in (*POLICY, "match"):
            if key not in TCP_POLICY and settings.get(key) is not None:
                remedy = f"remove it, or change {callee['name']!r} to protocol http"
                yield f"{path}.{key}: has no meaning for {callee['protocol']}; {remedy}"
        for key, value in (settings["retries"] or {}).items():
            if key not in ("count", "previous_hosts") and value:
                yield f"{path}.retries.{key}: has no meaning for {callee['protocol']}; give retries a number only"
        return
    yield from _retries(f"{path}.retries", settings["retries"], settings)
    if settings["grpc_timeout_max"] is not None and callee["protocol"] != "grpc":
        yield (
            f"{path}.grpc_timeout_max: needs protocol grpc, and {callee['name']!r} has {callee['protocol']}; remove it"
        )
    if settings["mirror"]:
        yield from mirror(f"{path}.mirror", settings["mirror"], callee, known)
    yield from passing(path, settings, callee)


def passing(path: str, settings: Item, callee: Item) -> Iterator[str]:
    """What a route does to requests that pass: headers and faults."""
    rewritable = "host_rewrite" in settings
    for key in ("request_headers", "response_headers"):
        for kind in ("set", "add", "remove"):
            for name in (settings.get(key) or {}).get(kind, []):
                if name.lower() == "host":
                    remedy = "give host_rewrite" if rewritable and key == "request_headers" else "remove it"
                    yield f"{path}.{key}.{kind}: 'host' is not changed like a header; {remedy}"
    fault = settings.get("fault")
    if not fault:
        return
    delay, abort = fault["delay"], fault["abort"]
    if not delay and not abort:
        yield f"{path}.fault: does nothing; give delay or abort"
    if abort and (abort["status"] is None) == (abort["grpc_status"] is None):
        yield f"{path}.fault.abort: give exactly one of status or grpc_status"
    if abort and abort["grpc_status"] is not None and callee["protocol"] != "grpc":
        yield f"{path}.fault.abort.grpc_status: needs protocol grpc, and {callee['name']!r} has {callee['protocol']}"
    yield from header_tests(f"{path}.fault.headers", fault["headers"])


def mirror(path: str, settings: Item, callee: Item, known: Known) -> Iterator[str]:
    """A copy goes to another service of the same kind."""
    yield from known_service(path, settings["service"], known)
    target = known.get(settings["service"])
    if target is None:
        return
    if target is callee:
        yield f"{path}.service: {callee['name']!r} gets these requests already; give another service"
    if target["versions"]:
        yield f"{path}.service: {target['name']!r} is a name for its versions; give one of them"
    if target["protocol"] != callee["protocol"]:
        yield (
            f"{path}.service: {target['name']!r} has protocol {target['protocol']}, and {callee['name']!r} "
            f"{callee['protocol']}; both need the same"
        )


def hash_source(path: str, value: Item | None) -> Iterator[str]:
    if value and sum(bool(item) for item in value.values()) != 1:
        yield f"{path}: give exactly one of header, cookie or source_ip"


def _hashing(path: str, settings: Item, callee: Item) -> Iterator[str]:
    policy_name = settings["lb_policy"] or callee["lb_policy"]
    hash_on = settings["hash_on"] or callee["hash_on"]
    if policy_name in HASHING_POLICIES and not hash_on:
        yield f"{path}.hash_on: is missing; {policy_name} needs a header, cookie or source_ip to hash"
    yield from hash_source(f"{path}.hash_on", settings["hash_on"])
    if hash_on and not hash_on["source_ip"] and not services.is_http(callee):
        yield f"{path}.hash_on: {callee['protocol']} has no headers; give source_ip: true"


def _health_check(path: str, health_check: Item | None, callee: Item) -> Iterator[str]:
    kind = health_check and health_check["type"]
    protocol = callee["protocol"]
    if kind == "grpc" and protocol not in ("grpc", "http2"):
        yield f"{path}.health_check.type: 'grpc' needs protocol grpc or http2, and {callee['name']!r} has {protocol}"
    if kind == "http" and not services.is_http(callee):
        yield (
            f"{path}.health_check.type: 'http' needs an HTTP protocol, and {callee['name']!r} has {protocol}; give tcp"
        )
    if health_check and services.has_sidecar(callee) and services.is_http(callee):
        yield from _health_check_passes(path, health_check, callee)


def _health_check_passes(path: str, health_check: Item, callee: Item) -> Iterator[str]:
    """Callers ask through the sidecar; where it refuses the question, every replica is unhealthy for ever."""
    asked = health_path(health_check, callee["protocol"])
    if asked and not any(_lets_pass(route, asked) for route in callee["sidecar"]["routes"]):
        yield (
            f"{path}.health_check: asks for {asked}, which the sidecar of {callee['name']!r} does not let pass; "
            f"add {{path: {asked}}} to its sidecar.routes"
        )


def _lets_pass(route: Item, asked: str) -> bool:
    """What a regular expression matches only Envoy knows."""
    if route["headers"]:
        return False
    if route["prefix"] is not None:
        return asked.startswith(route["prefix"])
    if route["path"] is not None:
        return bool(asked == route["path"])
    return route["grpc"] is None or f"{asked}/".startswith(f"/{route['grpc']}/")


def _discovery(path: str, settings: Item, callee: Item, mesh: Item) -> Iterator[str]:
    chosen = settings["discovery"]
    if chosen == "dns" and callee["endpoints"]:
        yield f"{path}.discovery: 'dns' has no use for endpoints; give static or eds, or remove the endpoints"
    if chosen in ("static", "eds") and callee["host"]:
        yield f"{path}.discovery: {chosen!r} has no use for a host; give dns"
    elif chosen in ("static", "eds") and not callee["endpoints"] and mesh["engine"] == "kubernetes":
        yield (
            f"{path}.discovery: {chosen!r} needs endpoints of {callee['name']!r} on engine kubernetes; list them, or "
            "use dns"
        )


def _slow_start(path: str, settings: Item, callee: Item) -> Iterator[str]:
    policy_name = settings["lb_policy"] or callee["lb_policy"]
    if settings["slow_start"] and policy_name not in SLOW_STARTING_POLICIES:
        yield f"{path}.slow_start: needs lb_policy {words(SLOW_STARTING_POLICIES)}, and it is {policy_name}"


def _connection(path: str, settings: Item, callee: Item) -> Iterator[str]:
    if services.is_http(callee):
        return
    for key in ("idle_timeout", "max_duration", "max_requests"):
        if (settings["connection"] or {}).get(key) is not None:
            remedy = "give the upstream an idle_timeout" if key == "idle_timeout" else "remove it"
            yield f"{path}.connection.{key}: has no meaning for {callee['protocol']}; {remedy}"


def _outliers(path: str, outliers: Item | None, callee: Item) -> Iterator[str]:
    if not outliers:
        return
    base, longest = outliers["base_ejection_time"], outliers["max_ejection_time"]
    if seconds(longest) < seconds(base):
        yield f"{path}.max_ejection_time: {longest} is below base_ejection_time, {base}; give at least that"
    if outliers["errors"] and not services.is_http(callee):
        yield f"{path}.errors: {callee['protocol']} has no statuses; remove it"


def _zones(path: str, settings: Item, callee: Item, caller: Item, mesh: Item) -> Iterator[str]:
    chosen = settings["discovery"] or callee["discovery"]
    if mesh["engine"] == "kubernetes":
        yield f"{path}.zone_aware: DNS tells no zones on engine kubernetes; remove it"
    elif chosen == "dns":
        yield f"{path}.zone_aware: DNS tells no zones; give discovery static or eds"
    elif caller is not callee and not caller["zones"]:
        yield f"{path}.zone_aware: the replicas of {caller['name']!r} have no zones; give it zones"
    elif not callee["zones"] and not all(endpoint["zone"] for endpoint in callee["endpoints"] or [{"zone": None}]):
        yield f"{path}.zone_aware: the replicas of {callee['name']!r} have no zones; give it zones"


def _retries(path: str, retries: Item | None, settings: Item) -> Iterator[str]:
    if not retries:
        return
    if STATUS_CONDITION in (retries["on"] or []) and not retries["statuses"]:
        yield f"{path}.statuses: is missing; {STATUS_CONDITION} needs the statuses to retry"
    if retries["hedge"] and not settings["idempotent"]:
        yield f"{path}.hedge: sends a request twice; only with idempotent: true beside it"
    if retries["hedge"] and retries["count"] == 0:
        yield f"{path}.hedge: needs a retry to send; give count at least 1"
    backoff = retries["backoff"]
    if backoff and backoff["max"] and seconds(backoff["max"]) < seconds(backoff["base"]):
        yield f"{path}.backoff.max: {backoff['max']} is below base, {backoff['base']}; give at least that"
