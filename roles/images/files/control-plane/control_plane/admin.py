# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP for probes, Prometheus and whoever wants to know: GET only, one request a connection."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from control_plane.metrics import Metrics
from control_plane.server import Connection, DiscoveryService
from control_plane.store import Store

MAX_REQUEST_BYTES = 8192
REQUEST_SECONDS = 5.0
MAX_CONNECTIONS = 64

Page = Callable[[], tuple[HTTPStatus, str, str]]
"""Gives status, content type and body."""

_TEXT = "text/plain; charset=utf-8"


def pages(
    store: Store, service: DiscoveryService, metrics: Metrics, problem: Callable[[], str | None]
) -> dict[str, Page]:
    """The pages by path. ``problem``: what is wrong with the newest configuration."""

    def ready() -> tuple[HTTPStatus, str, str]:
        if store.is_loaded:
            return HTTPStatus.OK, _TEXT, "ready\n"
        return (
            HTTPStatus.SERVICE_UNAVAILABLE,
            _TEXT,
            f"no configuration is loaded: {problem() or 'none was there yet'}\n",
        )

    def status_page() -> tuple[HTTPStatus, str, str]:
        return HTTPStatus.OK, "application/json", json.dumps(status(store, service, problem()), indent=1) + "\n"

    return {
        "/healthz": lambda: (HTTPStatus.OK, _TEXT, "ok\n"),
        "/ready": ready,
        "/metrics": lambda: (HTTPStatus.OK, "text/plain; version=0.0.4", metrics.text(service.connected())),
        "/status": status_page,
    }


def status(store: Store, service: DiscoveryService, problem: str | None) -> dict[str, Any]:
    """What is served to whom.

    * ``configuration``: ``version``, ``proxies`` (how many), ``error`` (of the newest one if it is not served)
    * ``connected``: one entry a stream: ``node``, ``proxy``, ``workload``, ``protocol``, ``since``, ``content`` (how
      its source calls what it is meant to have), ``synced`` (has all of it), ``types``: by kind ``sent`` and
      ``acknowledged`` (versions), ``refused`` (names of resources that it is meant to have and does not take) and
      ``nack`` (the last one: ``resources``, ``message``, ``version``, ``when``)
    """
    connected = sorted(service.connections, key=lambda each: (each.proxy, each.node_id, each.since))
    return {
        "configuration": {"version": store.version, "proxies": len(store.proxies), "error": problem},
        "connected": [_connection(each, _content(store, each.proxy)) for each in connected],
    }


def _content(store: Store, proxy: str) -> str | None:
    return store.proxies[proxy].content if proxy in store.proxies else None


def _connection(each: Connection, content: str | None) -> dict[str, Any]:
    return {
        "node": each.node_id,
        "proxy": each.proxy,
        "workload": each.workload,
        "protocol": each.protocol,
        "since": each.since,
        "content": content,
        "synced": each.stream.is_done,
        "types": {
            kind: {
                "sent": item.sent,
                "acknowledged": item.acknowledged,
                "refused": each.stream.kept_back(kind),
                "nack": item.nack,
            }
            for kind, item in sorted(each.types.items())
        },
    }


async def start(host: str, port: int, known: Mapping[str, Page]) -> asyncio.Server:
    """Serves the pages. Raises OSError where the address cannot be listened on."""
    places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if places.locked():
                return
            async with places, asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_answer(head, known))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            # Garbage, or somebody slow: nobody there who could use an answer.
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(1):
                    await writer.wait_closed()

    return await asyncio.start_server(serve, host, port, limit=MAX_REQUEST_BYTES)


def _answer(head: bytes, known: Mapping[str, Page]) -> bytes:
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        return _response(HTTPStatus.BAD_REQUEST, _TEXT, "not an HTTP/1 request\n")
    page = known.get(words[1].partition("?")[0])
    if page is None:
        return _response(HTTPStatus.NOT_FOUND, _TEXT, f"there are {', '.join(known)}\n")
    if words[0] != "GET":
        return _response(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "GET only\n", "Allow: GET\r\n")
    return _response(*page())


def _response(status: HTTPStatus, content_type: str, body: str, more: str = "") -> bytes:
    data = body.encode()
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {content_type}\r\nContent-Length: {len(data)}\r\n"
    return f"{head}{more}Connection: close\r\n\r\n".encode() + data
