# SPDX-License-Identifier: GPL-3.0-or-later
"""The aggregated discovery service over gRPC: who may open a stream, and what goes in and out of it."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc

from control_plane.logs import log, timestamp
from control_plane.metrics import Metrics
from control_plane.store import Store
from control_plane.streams import Acknowledged, Fact, Ignored, Protocol, Refused, RequestError, Response, Stream

FIRST_REQUEST_SECONDS = 10.0
LAST_WRITE_SECONDS = 0.5
MAX_REQUEST_BYTES = 4 * 1024 * 1024
MAX_NODE_ID = 256
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 16),
    # Two servers would share a port in silence.
    ("grpc.so_reuseport", 0),
    # A peer that vanished is gone after 15 s; Envoy may send pings of its own.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
"""Source: gRPC docs, "Keepalive" and "Channel arguments"."""


@dataclass(frozen=True)
class Identity:
    """Who a peer is proven to be, as far as that is known: whoever is nobody in particular may ask for everything."""

    workload: str | None = None
    """Of the proxy it may ask for."""
    node: str | None = None
    """Its node.id."""
    proxy: str | None = None
    """The configuration that it gets, whatever its node is."""


class UnknownPeerError(Exception):
    """It is not proven who a peer is; the text is for whoever runs it."""


Identify = Callable[[Any], Awaitable[Identity | None]]
"""Tells from a grpc.aio.ServicerContext who the peer is. None, or UnknownPeerError, where that cannot be told."""


class RefusalError(Exception):
    """A stream that is not served; the text is for whoever runs the client."""

    def __init__(self, code: grpc.StatusCode, reason: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason


@dataclass
class TypeStatus:
    """Of one type of resource on a stream."""

    sent: str = ""
    acknowledged: str = ""
    nack: dict[str, Any] | None = None
    """The last one: ``resources``, ``message``, ``version``, ``when``."""


@dataclass(eq=False)
class Connection:
    """An open stream."""

    node_id: str
    proxy: str
    workload: str
    protocol: Protocol
    stream: Stream
    since: str = field(default_factory=timestamp)
    changed_at: float | None = None
    types: dict[str, TypeStatus] = field(default_factory=dict)
    is_open: bool = True
    awake: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        self.awake.set()

    def named(self) -> dict[str, str]:
        """How the log names it."""
        return {"node": self.node_id, "proxy": self.proxy}


class DiscoveryService(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc]
    """Source: Envoy docs, "xDS REST and gRPC protocol", Aggregated Discovery Service."""

    def __init__(self, store: Store, metrics: Metrics, identify: Identify) -> None:
        self.connections: set[Connection] = set()
        self._store = store
        self._metrics = metrics
        self._identify = identify

    async def StreamAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> None:
        """State of the world."""
        await self._serve("sotw", requests, context)

    async def DeltaAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> None:
        """Incremental."""
        await self._serve("delta", requests, context)

    def connected(self) -> dict[str, int]:
        """How many streams there are of each protocol."""
        return {"delta": 0, "sotw": 0, **Counter(each.protocol for each in self.connections)}

    async def _serve(self, protocol: Protocol, requests: AsyncIterator[Any], context: Any) -> None:
        try:
            first = await _first(requests)
            connection = await self._admitted(protocol, first, context)
            await self._run(connection, first, requests, context)
        except RefusalError as exc:
            self._metrics.streams_refused[exc.reason] += 1
            log("refused", peer=context.peer(), reason=exc.reason, message=str(exc))
            await context.abort(exc.code, str(exc))

    # who may

    async def _admitted(self, protocol: Protocol, request: Any, context: Any) -> Connection:
        identity = await self._identified(context)
        node = request.node
        if not node.id or len(node.id) > MAX_NODE_ID:
            text = f"the first request must have a node.id of 1 to {MAX_NODE_ID} characters"
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "no_node", text)
        if identity.node not in (None, node.id):
            text = f"the peer is node {identity.node!r}, and node.id is {node.id!r}"
            raise RefusalError(grpc.StatusCode.PERMISSION_DENIED, "foreign_node", text)
        if not self._store.is_loaded:
            raise RefusalError(grpc.StatusCode.UNAVAILABLE, "not_loaded", "no configuration is loaded yet")
        name = identity.proxy or self._store.find(node.id, node.cluster)
        proxy = self._store.proxies.get(name or "")
        if name is None or proxy is None:
            asked = (
                f"its configuration {name!r}"
                if name
                else f"node.id {node.id!r} or node.cluster {node.cluster[:MAX_NODE_ID]!r}"
            )
            raise RefusalError(grpc.StatusCode.NOT_FOUND, "unknown_node", f"no proxy is known for {asked}")
        if identity.workload not in (None, proxy.workload):
            text = f"the peer is workload {identity.workload!r}, and {node.id!r} is a proxy of another one"
            raise RefusalError(grpc.StatusCode.PERMISSION_DENIED, "foreign_node", text)
        return Connection(node.id, name, proxy.workload, protocol, Stream(protocol, proxy.snapshot))

    async def _identified(self, context: Any) -> Identity:
        try:
            identity = await self._identify(context)
        except UnknownPeerError as exc:
            raise RefusalError(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", str(exc)) from exc
        if identity is None:
            text = "the peer does not prove which workload it is"
            raise RefusalError(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", text)
        return identity

    # in and out

    async def _run(self, connection: Connection, first: Any, requests: AsyncIterator[Any], context: Any) -> None:
        self.connections.add(connection)
        self._store.join(connection.proxy, connection)
        log("connected", **connection.named(), protocol=connection.protocol, peer=context.peer())
        writer = asyncio.create_task(self._write(connection, context))
        try:
            self._received(connection, first)
            async for request in requests:
                if writer.done():
                    # Raises what ended it: the client shall come back rather than wait for ever.
                    writer.result()
                self._received(connection, request)
        except RequestError as exc:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "malformed", str(exc)) from exc
        finally:
            self.connections.discard(connection)
            self._store.leave(connection.proxy, connection)
            log("disconnected", **connection.named())
            connection.is_open = False
            connection.wake()
            # A status that overtakes a write is never sent. Whoever does not read gets none.
            await asyncio.wait([writer], timeout=LAST_WRITE_SECONDS)
            writer.cancel()

    def _received(self, connection: Connection, request: Any) -> None:
        if request.node.id not in ("", connection.node_id):
            raise RequestError(f"node.id is {request.node.id[:MAX_NODE_ID]!r}, and was {connection.node_id!r}")
        for fact in connection.stream.receive(request):
            self._record(connection, fact)
        self._store.progressed(connection)
        if connection.changed_at and connection.stream.is_done:
            self._metrics.pushed_in(time.monotonic() - connection.changed_at)
            connection.changed_at = None
        connection.wake()

    async def _write(self, connection: Connection, context: Any) -> None:
        # A client that does not read holds up this task only, and what it is sent next is what is wanted by then.
        while connection.is_open:
            await connection.awake.wait()
            connection.awake.clear()
            while connection.is_open and (response := connection.stream.next_response()):
                self._pushed(connection, response)
                try:
                    await context.write(response.message)
                except Exception as exc:  # noqa: BLE001 - whatever gRPC raises, the stream is broken, and its reader ends
                    log("unwritable", **connection.named(), message=repr(exc))
                    return

    def _pushed(self, connection: Connection, response: Response) -> None:
        self._metrics.pushes[response.kind] += 1
        self._metrics.resources[response.kind] += len(response.names)
        connection.types.setdefault(response.kind, TypeStatus()).sent = response.version
        log(
            "pushed",
            **connection.named(),
            type=response.kind,
            version=response.version,
            resources=len(response.names),
            removed=len(response.removed),
        )

    def _record(self, connection: Connection, fact: Fact) -> None:
        match fact:
            case Acknowledged(kind, version):
                self._metrics.acknowledged[kind] += 1
                connection.types[kind].acknowledged = version
                log("acknowledged", **connection.named(), type=kind, version=version)
            case Refused(kind, version, names, message):
                self._metrics.nacks[kind] += 1
                nack = {"resources": names, "message": message, "version": version, "when": timestamp()}
                connection.types[kind].nack = nack
                log("nack", **connection.named(), type=kind, version=version, resources=names, message=message)
            case Ignored(type_url):
                self._metrics.types_ignored += 1
                log("ignored", **connection.named(), type_url=type_url)


async def _first(requests: AsyncIterator[Any]) -> Any:
    try:
        return await asyncio.wait_for(anext(requests), FIRST_REQUEST_SECONDS)
    except TimeoutError as exc:
        text = f"no request within {FIRST_REQUEST_SECONDS:.0f} s"
        raise RefusalError(grpc.StatusCode.DEADLINE_EXCEEDED, "silent", text) from exc
    except StopAsyncIteration as exc:
        raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, "silent", "the stream ended before a request") from exc


def make_server(service: DiscoveryService) -> grpc.aio.Server:
    """A server that is bound to nothing yet, and has to be made in a running event loop."""
    server = grpc.aio.server(options=OPTIONS)
    ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(service, server)
    return server
