# SPDX-License-Identifier: GPL-3.0-or-later
"""One stream of one proxy as a state machine: requests and wanted snapshots go in, responses and facts come out.

Both protocols of aggregated discovery, incremental and state of the world. Nothing here waits, reads or writes.
Source: Envoy docs, "xDS REST and gRPC protocol".
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from ansible_collections.sidecar.mesh.plugins.module_utils import ordering
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import CLUSTERS, ENDPOINTS, KINDS, LISTENERS, ROUTES
from envoy.service.discovery.v3 import discovery_pb2

from control_plane.encode import TYPE_URLS, Resource, message
from control_plane.snapshots import Snapshot, with_endpoints
from control_plane.subscriptions import WILDCARD, Content, Grouping, Subscription, content_version

Protocol = Literal["delta", "sotw"]

LAST = ordering.STEPS - 1
MAX_NAMES = 10_000
"""Names that one stream may ask for, of one type."""
MAX_IGNORED = 16
"""Types of which a stream is told once that nobody serves them."""
_KINDS = {type_url: kind for kind, type_url in TYPE_URLS.items()}
_TYPE_URL = re.compile(r"type\.googleapis\.com/[A-Za-z_][A-Za-z0-9_.]{0,199}")
_CHILDREN = {CLUSTERS: ENDPOINTS, LISTENERS: ROUTES}


class RequestError(ValueError):
    """A request that no client sends; the text tells what is wrong with it."""


@dataclass(frozen=True)
class Acknowledged:
    """The client has what was sent."""

    kind: str
    version: str


@dataclass(frozen=True)
class Refused:
    """The client keeps what it had. ``names`` are those of the resources it refused, as far as it tells."""

    kind: str
    version: str
    names: list[str]
    message: str


@dataclass(frozen=True)
class Ignored:
    """The client asks for a type that is not served here."""

    type_url: str


Fact = Acknowledged | Refused | Ignored


@dataclass(frozen=True)
class Response:
    """To be written now. ``message``: DeltaDiscoveryResponse or DiscoveryResponse."""

    kind: str
    version: str
    message: Any
    names: list[str]
    removed: list[str]


class Stream:
    """What the client of a stream has, and the steps in which it comes to what it is meant to have.

    After every event ``next_response`` gives what is to be sent until it gives None.
    """

    def __init__(self, protocol: Protocol, target: Snapshot) -> None:
        """``target``: what the client is meant to have; a client that is new is sent all of it at once."""
        self.protocol = protocol
        self.subscriptions: dict[str, Subscription] = {}
        self.step = self.allowed = LAST
        self.is_resumed = False
        """Whether the client had resources already, and goes to what is wanted step by step."""
        self._steps = [target] * ordering.STEPS
        self._waits_for_children = True
        self._nonces = 0
        self._ignored: set[str] = set()

    @property
    def wanted(self) -> Snapshot:
        """What the client is to have now."""
        return self._steps[self.step]

    # events

    def receive(self, request: Any) -> list[Fact]:
        """A DeltaDiscoveryRequest or DiscoveryRequest came in. Raises RequestError."""
        kind = _KINDS.get(request.type_url)
        if kind is None:
            return self._ignore(request.type_url)
        first = kind not in self.subscriptions
        subscription = self.subscriptions.setdefault(kind, Subscription(self._grouping(kind)))
        receive = self._receive_delta if self.protocol == "delta" else self._receive_whole
        facts = receive(kind, subscription, request, first)
        if len(subscription.names) > MAX_NAMES:
            raise RequestError(f"more than {MAX_NAMES} names of {request.type_url}")
        self._go_on()
        return facts

    def change(self, target: Snapshot) -> None:
        """The client is meant to have something else: begins the steps to it, from what it has."""
        self._begin(target)

    def refresh(self, old: Snapshot, new: Snapshot) -> None:
        """The target is ``new`` instead of ``old``, of which it differs in the content of endpoints: no steps."""
        self._steps = [with_endpoints(step, old, new) for step in self._steps[:LAST]] + [new]

    def allow(self, step: int) -> None:
        """The client may go as far as this step (0 to LAST), as soon as it has acknowledged those before."""
        self.allowed = step
        self._go_on()

    def hurry(self) -> None:
        """Time is up: waits for acknowledgements alone, not for what the client has not asked for yet."""
        self._waits_for_children = False
        self._go_on()

    def next_response(self) -> Response | None:
        """What is to be written next: clusters, endpoints, listeners, routes. Counts as sent."""
        for kind in KINDS:
            subscription = self.subscriptions.get(kind)
            content = subscription.due(self.wanted[kind]) if subscription else None
            if subscription and content:
                return self._send(kind, subscription, content)
        return None

    # looks

    @property
    def is_settled(self) -> bool:
        """Whether the client has acknowledged all that it is to have now, with what that needs."""
        for kind, subscription in self.subscriptions.items():
            if subscription.sent or subscription.due(self.wanted[kind]):
                return False
        return not self._waits_for_children or not any(map(self._lacks, _CHILDREN))

    @property
    def is_stopped(self) -> bool:
        """Whether the client refused something that it is to have now: the steps after it do not come."""
        return any(map(self.kept_back, self.subscriptions))

    @property
    def is_done(self) -> bool:
        """Whether the client has all that it is meant to have."""
        return self.step == LAST and self.is_settled and not self.is_stopped

    def kept_back(self, kind: str) -> list[str]:
        """Names of the resources that the client refused, and is meant to have."""
        return self.subscriptions[kind].kept_back(self.wanted[kind])

    def has_passed(self, step: int) -> bool:
        """Whether nobody has to wait for this client before the next step begins."""
        return self.step > step or (self.step == step and self.is_settled) or self.is_stopped

    # requests

    def _grouping(self, kind: str) -> Grouping:
        if self.protocol == "delta":
            return Grouping.CHANGES
        return Grouping.EVERYTHING if kind in _CHILDREN else Grouping.PARTS

    def _ignore(self, type_url: str) -> list[Fact]:
        if not _TYPE_URL.fullmatch(type_url):
            raise RequestError(f"type_url {type_url[:100]!r} is none")
        if type_url in self._ignored or len(self._ignored) >= MAX_IGNORED:
            return []
        self._ignored.add(type_url)
        return [Ignored(type_url)]

    def _receive_delta(self, kind: str, subscription: Subscription, request: Any, first: bool) -> list[Fact]:
        # The subscription counts even where the nonce is an old one.
        facts = self._answered(kind, subscription, request)
        has = dict(request.initial_resource_versions) if first else {}
        names, gone = list(request.resource_names_subscribe), list(request.resource_names_unsubscribe)
        if first and not names and not gone and kind in _CHILDREN:
            subscription.wildcard = subscription.unanswered = True
        subscription.subscribe(names, answered=has)
        subscription.unsubscribe(gone)
        if has:
            self._resume(kind, subscription, has)
        return facts

    def _receive_whole(self, kind: str, subscription: Subscription, request: Any, first: bool) -> list[Fact]:
        if subscription.last_nonce and request.response_nonce != subscription.last_nonce:
            # Whoever sent it had not seen the last response yet, and will answer that one.
            return []
        is_answer = subscription.sent is not None
        facts = self._answered(kind, subscription, request)
        names = set(request.resource_names)
        if not names and not subscription.was_named and kind in _CHILDREN:
            subscription.unanswered = subscription.unanswered or first
            subscription.wildcard = True
        else:
            had = subscription.names | ({WILDCARD} if subscription.wildcard else set())
            # Neither an answer nor a change: the client forgot what it had.
            repeated = set() if is_answer or first or names != had else names - {WILDCARD}
            subscription.unsubscribe(had - names)
            subscription.subscribe((names - had) | repeated)
            # A client that names clusters or listeners learns from the response which of them there are.
            subscription.unanswered = subscription.unanswered or (first and kind in _CHILDREN)
        if first and subscription.wildcard:
            self._keep(kind, subscription, request.version_info)
        return facts

    def _answered(self, kind: str, subscription: Subscription, request: Any) -> list[Fact]:
        """What a request says about the response that was sent last."""
        sent = subscription.sent
        if sent is None or request.response_nonce != sent.nonce:
            return []
        if not request.HasField("error_detail"):
            subscription.acknowledge()
            return [Acknowledged(kind, sent.version)]
        text = request.error_detail.message
        return [Refused(kind, sent.version, subscription.refuse(text), text)]

    def _resume(self, kind: str, subscription: Subscription, versions: dict[str, str]) -> None:
        """A client comes back with resources: nothing is taken away before it is known what it has of every kind."""
        if len(versions) > MAX_NAMES:
            raise RequestError(f"more than {MAX_NAMES} initial_resource_versions")
        target = self._steps[LAST]
        for name, version in versions.items():
            item = target[kind].get(name)
            same = item is not None and item.version == version
            subscription.held[name] = item if item is not None and same else Resource(name, version, b"")
        subscription.unanswered = False
        self.is_resumed = True
        self._begin(target)

    def _keep(self, kind: str, subscription: Subscription, version: str) -> None:
        """A client comes back with exactly what it is meant to have, and need not be sent it."""
        scope = subscription.scope(self.wanted[kind])
        if version and version == content_version(scope):
            subscription.held, subscription.acknowledged, subscription.unanswered = dict(scope), version, False

    # steps

    def _begin(self, target: Snapshot) -> None:
        base = {kind: self._has(kind, target) for kind in KINDS}
        self._steps = [*ordering.every_step(base, target, lambda item: item.port)[:LAST], target]
        self._waits_for_children = True
        self.step = self.allowed = 0
        self._go_on()

    def _has(self, kind: str, target: Snapshot) -> dict[str, Resource]:
        """What the client has once it took what is on its way; of what it did not ask for yet, the target."""
        subscription = self.subscriptions.get(kind)
        if subscription is None:
            return target[kind]
        return {**subscription.held, **(subscription.sent.content.resources if subscription.sent else {})}

    def _go_on(self) -> None:
        while self.step < self.allowed and not self.is_stopped and self.is_settled:
            self.step += 1
        if self.step == LAST:
            # Those before are needed no more, and take memory.
            self._steps = [self._steps[LAST]] * ordering.STEPS

    def _lacks(self, kind: str) -> bool:
        """Whether the client took a cluster or listener, and not yet its endpoints or routes."""
        parents, children = self.subscriptions.get(kind), self.subscriptions.get(_CHILDREN[kind])
        wanted, has = self.wanted[_CHILDREN[kind]], children.held if children else {}
        needed = (name for item in (parents.held.values() if parents else ()) for name in item.needs)
        return any(name in wanted and name not in has for name in needed)

    # responses

    def _send(self, kind: str, subscription: Subscription, content: Content) -> Response:
        self._nonces += 1
        nonce, version = str(self._nonces), content_version(subscription.scope(self.wanted[kind]))
        if subscription.grouping is Grouping.EVERYTHING:
            version = content_version(content.resources)
        subscription.send(content, nonce, version)
        if kind == CLUSTERS:
            self._ask_for_endpoints(subscription)
        names, removed = sorted(content.resources), sorted(content.removed)
        make = _delta_response if self.protocol == "delta" else _whole_response
        return Response(kind, version, make(kind, nonce, version, content), names, removed)

    def _ask_for_endpoints(self, clusters: Subscription) -> None:
        """A cluster that changed waits for its endpoints, even where they are the same.

        An Envoy that has them already does not ask in the incremental protocol, and acknowledges the cluster only after
        its initial_fetch_timeout of 15 s.
        """
        endpoints, sent = self.subscriptions.get(ENDPOINTS), clusters.sent
        if endpoints and sent:
            needed = {name for fresh in sent.fresh for name in sent.content.resources[fresh].needs}
            endpoints.asked |= needed & endpoints.names


def _delta_response(kind: str, nonce: str, version: str, content: Content) -> Any:
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=TYPE_URLS[kind],
        nonce=nonce,
        system_version_info=version,
        resources=[
            discovery_pb2.Resource(name=name, version=item.version, resource=message(kind, item))
            for name, item in sorted(content.resources.items())
        ],
        removed_resources=sorted(content.removed),
    )


def _whole_response(kind: str, nonce: str, version: str, content: Content) -> Any:
    return discovery_pb2.DiscoveryResponse(
        type_url=TYPE_URLS[kind],
        nonce=nonce,
        version_info=version,
        resources=[message(kind, item) for _name, item in sorted(content.resources.items())],
    )
