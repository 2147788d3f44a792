# SPDX-License-Identifier: GPL-3.0-or-later
"""A client of a stream without a wire, for tests of the state machine, and snapshots in one line."""

from typing import Any, Self

from control_plane.encode import TYPE_URLS, Resource
from control_plane.snapshots import Snapshot
from control_plane.streams import Acknowledged, Fact, Protocol, Response, Stream
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2


def snap(text: str) -> Snapshot:
    """Such as ``b=1 c=1.2 9001>b``: clusters with version (and that of their endpoints), listeners with routes."""
    made: Snapshot = {kind: {} for kind in TYPE_URLS}
    for word in text.split():
        if "=" in word:
            name, _rest, content = word.partition("=")
            cluster, _rest, endpoints = content.partition(".")
            made["clusters"][name] = resource(name, cluster, needs=(name,))
            made["endpoints"][name] = resource(name, endpoints or "1")
        else:
            name, _rest, routes = word.partition(">")
            made["listeners"][name] = resource(name, "1", needs=(name,), port=int(name))
            made["routes"][name] = resource(name, routes)
    return made


_made: dict[Any, Resource] = {}


def resource(name: str, version: str, **more: Any) -> Resource:
    """One object for one content, as encode has it."""
    key = name, version, tuple(sorted(more.items()))
    return _made.setdefault(key, Resource(name, version, f"{name}={version}".encode(), **more))


class Client:
    """What a client asked, has and was sent. It acknowledges when it is told to."""

    def __init__(self, protocol: Protocol, wanted: str) -> None:
        self.protocol = protocol
        self.stream = Stream(protocol, snap(wanted))
        self.log: list[str] = []
        """What it was sent since it was asked last, such as ``clusters b=1 -c``."""
        self.unanswered: dict[str, Response] = {}
        self.versions: dict[str, str] = {}
        self.has: dict[str, set[str]] = {kind: set() for kind in TYPE_URLS}
        self.names: dict[str, set[str]] = {kind: set() for kind in TYPE_URLS}

    def ask(self, kind: str, *names: str, gone: tuple[str, ...] = (), has: dict[str, str] | None = None) -> list[str]:
        """Subscribes: in the state of the world, ``names`` is everything; what it was sent."""
        self.names[kind] = set(names)
        if self.protocol == "delta":
            request: Any = discovery_pb2.DeltaDiscoveryRequest(
                resource_names_subscribe=names, resource_names_unsubscribe=gone, initial_resource_versions=has or {}
            )
        else:
            request = self._whole(kind)
        self._send(kind, request)
        return self.take()

    def answer(self, kind: str, error: str | None = None, nonce: str | None = None) -> list[Fact]:
        """Acknowledges the response it got of a kind, or refuses it."""
        response = self.unanswered.pop(kind)
        if error is None:
            self.versions[kind] = response.version
        request: Any = discovery_pb2.DeltaDiscoveryRequest() if self.protocol == "delta" else self._whole(kind)
        request.response_nonce = response.message.nonce if nonce is None else nonce
        if error is not None:
            request.error_detail.CopyFrom(status_pb2.Status(code=13, message=error))
        facts = self._send(kind, request)
        self._receive()
        return facts

    def acknowledge_all(self) -> list[str]:
        """Answers until nothing comes; all that was sent."""
        self._receive()
        while self.unanswered:
            for kind in list(self.unanswered):
                (fact,) = self.answer(kind)
                assert isinstance(fact, Acknowledged)
        return self.take()

    def take(self) -> list[str]:
        self._receive()
        found, self.log = self.log, []
        return found

    def start(self) -> Self:
        """As Envoy does, with the clusters b and c and the listener 9001."""
        self.ask("clusters")
        self.acknowledge_all()
        self.ask("endpoints", *self.stream.wanted["clusters"])
        self.acknowledge_all()
        self.ask("listeners")
        self.acknowledge_all()
        self.ask("routes", *self.stream.wanted["listeners"])
        self.acknowledge_all()
        assert self.stream.is_done
        return self

    def _whole(self, kind: str) -> Any:
        response = self.unanswered.get(kind)
        nonce = response.message.nonce if response else self.nonces.get(kind, "")
        return discovery_pb2.DiscoveryRequest(
            resource_names=sorted(self.names[kind]), version_info=self.versions.get(kind, ""), response_nonce=nonce
        )

    @property
    def nonces(self) -> dict[str, str]:
        return {kind: item.last_nonce for kind, item in self.stream.subscriptions.items()}

    def _send(self, kind: str, request: Any) -> list[Fact]:
        request.type_url = TYPE_URLS[kind]
        return self.stream.receive(request)

    def _receive(self) -> None:
        while response := self.stream.next_response():
            assert response.kind not in self.unanswered, "two responses of one type are on their way"
            self.unanswered[response.kind] = response
            gone = (f"-{name}" for name in response.removed)
            self.log.append(" ".join([response.kind, *self.contents(response), *gone]))

    def contents(self, response: Response) -> list[str]:
        if isinstance(response.message, discovery_pb2.DeltaDiscoveryResponse):
            assert [item.name for item in response.message.resources] == response.names
            return [item.resource.value.decode() for item in response.message.resources]
        return [item.value.decode() for item in response.message.resources]
