# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks processes whether they are ready, and Envoys to hand over their clients before they are stopped."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

Item = TypeVar("Item")
Result = TypeVar("Result")

PROBE_SECONDS = 1.0
PARALLEL = 16
DRAIN_POLL_SECONDS = 0.05
DRAIN_QUIET_SECONDS = 0.5
"""How long an Envoy must get no request before it counts as drained."""

_DOWNSTREAM = re.compile(r"^(http|listener)\.(.+)\.downstream_(cx_active|rq_active|rq_total): (\d+)$", re.MULTILINE)


class Load(NamedTuple):
    """What an Envoy's clients have it do."""

    active: int | None
    """Requests and TCP connections in progress; None when the Envoy does not count them."""
    requests: int
    """Requests since it was started."""


def in_parallel(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results in the order of the items."""
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        return list(pool.map(function, items))


def not_ready(ready: Mapping[str, str]) -> str:
    """Why ``{http: url}`` (wants a 2xx) or ``{tcp: address:port}`` (wants a connection) is not ready; "" if it is."""
    try:
        if ready.get("tcp"):
            socket.create_connection(_address(ready["tcp"]), timeout=PROBE_SECONDS).close()
            return ""
        status, body = _request("GET", ready["http"])
    except (OSError, http.client.HTTPException) as error:
        return f"{_question(ready)}: {error or type(error).__name__}"
    return "" if 200 <= status < 300 else f"{_question(ready)}: {status} {body.strip()[:80]}".rstrip()


def is_draining(admin: str) -> bool:
    """Whether an Envoy was told to drain, for example by a run that ended before it stopped the Envoy."""
    try:
        status, body = _request("GET", f"http://{admin}/ready")
    except (OSError, http.client.HTTPException):
        return False
    return status == 503 and body.strip() == "DRAINING"


def undrain(admin: str) -> None:
    """Take back drain(). An Envoy that does not answer is left alone."""
    _post(f"http://{admin}/healthcheck/ok")


def drain(admin: str, seconds: float) -> bool:
    """Have an Envoy's clients leave: False if it still had something to do after ``seconds``.

    With a failed health check every answer carries ``connection: close`` (HTTP/2: GOAWAY) at once, whatever
    ``--drain-time-s`` is, and health-checked callers turn away, while new connections still succeed: so it can be
    taken back, which /drain_listeners cannot. An Envoy that does not answer is drained.
    """
    deadline = time.monotonic() + seconds
    if not _post(f"http://{admin}/healthcheck/fail"):
        return True
    quiet_since, requests = time.monotonic(), -1
    while (found := _load(admin)) is not None:
        now = time.monotonic()
        if found.active != 0 or found.requests != requests:
            quiet_since, requests = now, found.requests
        if now - quiet_since >= DRAIN_QUIET_SECONDS:
            return True
        if now >= deadline:
            return False
        time.sleep(DRAIN_POLL_SECONDS)
    return True


def load(stats: str) -> Load:
    """The load according to Envoy's stats, without that of the admin interface.

    Connections that carry HTTP count only while they carry a request: idle ones stay open for an hour. Plain TCP has
    no gauge of its own, so it is what the listeners have and the HTTP connection managers have not.
    """
    sums: Counter[tuple[str, str]] = Counter()
    for kind, name, what, value in _DOWNSTREAM.findall(stats):
        if name.partition(".")[0] != "admin" and ".worker_" not in name:
            sums[kind, what] += int(value)
    tcp = max(0, sums["listener", "cx_active"] - sums["http", "cx_active"])
    active = sums["http", "rq_active"] + tcp
    counted = any(what != "rq_total" for (kind, what) in sums)
    return Load(active if counted else None, sums["http", "rq_total"])


def _load(admin: str) -> Load | None:
    """None when nobody answers."""
    try:
        stats = _request("GET", f"http://{admin}/stats?filter=downstream_(cx_active|rq_active|rq_total)$")[1]
    except (OSError, http.client.HTTPException):
        return None
    return load(stats)


def _post(url: str) -> bool:
    try:
        _request("POST", url)
    except (OSError, http.client.HTTPException):
        return False
    return True


def _request(method: str, url: str) -> tuple[int, str]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=PROBE_SECONDS)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request(method, target)
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def _question(ready: Mapping[str, Any]) -> str:
    return f"TCP {ready['tcp']}" if ready.get("tcp") else f"GET {ready['http']}"


def _address(text: str) -> tuple[str, int]:
    host, port = text.rsplit(":", 1)
    return host.strip("[]"), int(port)
