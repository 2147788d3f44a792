# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where requests go and what they are told: routes with every setting decided.

A route is plain data and all the builder of routes needs: ``match``, ``clusters`` (name, weight, host_rewrite),
``sticky`` (by hash), ``cookie`` (that names the version), ``hash_on`` (a list), ``policy``, ``websocket`` and
``envoy_patch``; or ``match`` and ``answer`` (status, body).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import services
from ansible_collections.sidecar.mesh.plugins.module_utils.edges import health_check, patch
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import POLICY, STATUS_CONDITION

Item = dict[str, Any]

SAFE_RETRIES = ("connect-failure", "refused-stream", "reset-before-request")
IDEMPOTENT_RETRIES = (*SAFE_RETRIES, "reset", "gateway-error")
# What is a gateway error of HTTP, proxies tell callers of gRPC like this.
IDEMPOTENT_GRPC_RETRIES = (*IDEMPOTENT_RETRIES, "unavailable")
DEFAULT_RETRIES = 2
IDEMPOTENT_DEFAULT_RETRIES = 4
IDEMPOTENT_TRY_TIMEOUT = "1s"
TIMEOUT = "15s"
NO_LIMIT = "0s"
UNLIMITED: Item = {"unlimited": True}
"""A rate limit for requests that the listener's own does not count."""

NO_POLICY: Item = {**dict.fromkeys(POLICY), "grpc": False, "grpc_deadline": False}


def routes(asked: Item, callee: Item, settings: Item, own: Item | None, world: Item) -> list[Item]:
    """Routes of requests (``asked``: their match) to a service: those that a version claims or has, then all others.

    ``settings``: the route or upstream; ``own``: what the caller says of the service whatever the route.
    """
    shared: Item = {
        "hash_on": _hashing(callee, own, world),
        "policy": _policy(settings, own, callee, world),
        "websocket": _upgrades(callee, world),
        "envoy_patch": patch(settings, "route"),
    }
    versions = callee["versions"] or []
    weights = [(version["service"], version["weight"]) for version in versions if version["weight"]]
    cookie = callee["sticky"] and callee["sticky"]["cookie"]
    claims = [(version["service"], claim) for version in versions for claim in _claims(version)]
    if cookie:
        claims += [(name, [_cookie(cookie, name)]) for name, _weight in weights]
    claimed = [
        {
            **shared,
            "policy": _without_copies_to(name, shared["policy"]),
            "match": {**asked, "headers": [*asked["headers"], *claim]},
            **_shares([(name, 1)], world),
        }
        for name, claim in claims
    ]
    rest = {**shared, "match": asked, **_shares(weights or [(callee["name"], 1)], world)}
    return [*claimed, {**rest, "sticky": bool(callee["sticky"]) and not cookie, "cookie": cookie}]


def shares(callee: Item) -> list[Item]:
    """Clusters of a service that is not HTTP, with their weights."""
    versions = [version for version in callee["versions"] or [] if version["weight"]]
    weights = [{"name": version["service"], "weight": version["weight"]} for version in versions]
    return weights or [{"name": callee["name"], "weight": 1}]


def ingress_routes(service: Item, cluster: str) -> list[Item]:
    """Routes from a sidecar to its application. The callers' own time limits hold; others could only cut them short."""
    streams = service["protocol"] == "grpc" or service["websocket"]
    base = {
        "clusters": [{"name": cluster, "weight": 1, "host_rewrite": None}],
        "sticky": False,
        "cookie": None,
        "hash_on": [],
        "websocket": service["websocket"],
    }
    untold = {**NO_POLICY, "timeout": NO_LIMIT, "idle_timeout": NO_LIMIT if streams else None}
    found = [
        {
            **base,
            "match": match(route),
            "policy": {
                **untold,
                **{key: route[key] for key in ("request_headers", "response_headers", "fault", "rate_limit")},
            },
            "envoy_patch": patch(route, "route"),
        }
        for route in service["sidecar"]["routes"]
    ]
    asked = service["sidecar"]["rate_limit"] and health_path(service["health_check"], service["protocol"])
    if not asked:
        return found
    checks = {"path": asked, "headers": [], "grpc": False}
    return [{**base, "match": checks, "policy": {**untold, "rate_limit": UNLIMITED}, "envoy_patch": {}}, *found]


def answer(status: int, body: str) -> Item:
    """A route that answers every request itself."""
    return {"match": EVERYTHING, "answer": {"status": status, "body": body}}


def match(settings: Item) -> Item:
    """One matcher of a path, ``grpc`` resolved to the path it stands for."""
    grpc = settings["grpc"]
    if grpc:
        path = {"path": f"/{grpc}"} if "/" in grpc else {"prefix": f"/{grpc}/"}
    else:
        path = {key: settings[key] for key in ("prefix", "path", "regex") if settings[key] is not None} or {
            "prefix": "/"
        }
    return {**path, "headers": settings["headers"] or [], "grpc": bool(grpc)}


EVERYTHING: Item = {"prefix": "/", "headers": [], "grpc": False}


def health_path(settings: Item | None, protocol: str) -> str | None:
    """Path of the question that callers ask; None where it is no request."""
    check = health_check(settings, protocol) or {"type": None}
    if check["type"] == "grpc":
        return "/grpc.health.v1.Health/Check"
    return check["path"].partition("?")[0] if check["type"] == "http" else None


def connects(settings: Iterable[Item | None]) -> Item:
    """What a connection that is not HTTP is told: tries to connect, and how long it may stay silent."""
    given = [item for item in settings if item]
    retries = next((item["retries"] for item in given if item["retries"]), None)
    count = DEFAULT_RETRIES if retries is None or retries["count"] is None else retries["count"]
    idle = next((item["idle_timeout"] for item in given if item["idle_timeout"]), None)
    return {"connect_attempts": count + 1, "idle_timeout": idle}


def hash_on(callee: Item, own: Item | None, world: Item) -> Item | None:
    """What is hashed for the choice of a replica: as the caller says, else as the services that answer do."""
    found: Item | None = (own or {}).get("hash_on")
    for service in services.answering(callee, world["services"]):
        found = found or service["hash_on"]
    return found


def _upgrades(callee: Item, world: Item) -> bool:
    """Whether requests may become websockets."""
    return any(service["websocket"] for service in services.answering(callee, world["services"]))


def _claims(version: Item) -> list[list[Item]]:
    """Header matchers by each of which a request belongs to a version."""
    claims = [version["headers"]] if version["headers"] else []
    cookie = version["cookie"]
    if cookie:
        claims.append([_cookie(cookie["name"], cookie["value"])])
    return claims


def _cookie(name: str, value: str | None) -> Item:
    """The matcher of a cookie, with any value if none is given."""
    wanted = "[^;]*" if value is None else re.escape(value)
    pattern = rf"(.*;\s*)?{re.escape(name)}={wanted}(\s*;.*)?"
    return {"name": "cookie", "exact": None, "prefix": None, "regex": pattern, "present": None}


def _shares(weights: list[tuple[str, int]], world: Item) -> Item:
    known = world["services"]
    clusters = [{"name": name, "weight": weight, "host_rewrite": known[name]["host"]} for name, weight in weights]
    return {"clusters": clusters, "sticky": False, "cookie": None}


def _hashing(callee: Item, own: Item | None, world: Item) -> list[Item]:
    """What is hashed: for the choice of a version, then of a replica."""
    replicas = hash_on(callee, own, world)
    found: list[Item] = []
    # A cookie names its version.
    sticky = None if callee["sticky"] and callee["sticky"]["cookie"] else callee["sticky"]
    for item in (sticky, replicas):
        if item and item not in found:
            found.append(item)
    return found


def _policy(settings: Item, own: Item | None, callee: Item, world: Item) -> Item:
    """What a request is told; what a route leaves open, the caller's settings for the service decide."""
    merged = {key: settings[key] if settings.get(key) is not None else (own or {}).get(key) for key in POLICY}
    grpc = callee["protocol"] == "grpc"
    streams = grpc or _upgrades(callee, world)
    mirror = merged["mirror"] or callee["mirror"]
    return {
        **merged,
        "timeout": merged["timeout"] or (NO_LIMIT if grpc else TIMEOUT),
        "idle_timeout": merged["idle_timeout"] or (NO_LIMIT if streams else None),
        "grpc": grpc,
        "grpc_deadline": grpc and merged["timeout"] is None,
        "retries": retries(merged["retries"], bool(merged["idempotent"]), grpc=grpc),
        "mirror": mirror,
    }


def _without_copies_to(name: str, policy: Item) -> Item:
    """Who gets a request needs no copy of it."""
    return {**policy, "mirror": None} if policy["mirror"] and policy["mirror"]["service"] == name else policy


def retries(settings: Item | None, idempotent: bool, *, grpc: bool) -> Item | None:
    """How often a request is tried again, and when."""
    settings = settings or {}
    given = settings.get("count")
    count = given if given is not None else (IDEMPOTENT_DEFAULT_RETRIES if idempotent else DEFAULT_RETRIES)
    if not count:
        return None
    statuses = settings.get("statuses") or []
    repeatable = IDEMPOTENT_GRPC_RETRIES if grpc else IDEMPOTENT_RETRIES
    on = list(settings.get("on") or (repeatable if idempotent else SAFE_RETRIES))
    return {
        "count": count,
        "on": [*on, STATUS_CONDITION] if statuses and STATUS_CONDITION not in on else on,
        "statuses": statuses,
        "per_try_timeout": settings.get("per_try_timeout") or (IDEMPOTENT_TRY_TIMEOUT if idempotent else None),
        "per_try_idle_timeout": settings.get("per_try_idle_timeout"),
        "backoff": settings.get("backoff"),
        "previous_hosts": settings.get("previous_hosts", True),
        # A route that is not idempotent may have the retries of a service that else is.
        "hedge": idempotent and settings.get("hedge", False),
    }
