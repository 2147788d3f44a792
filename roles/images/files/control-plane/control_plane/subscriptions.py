# SPDX-License-Identifier: GPL-3.0-or-later
"""What one client asked for, has and refused, of one type of resource on one stream.

Source: Envoy docs, "xDS REST and gRPC protocol".
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from control_plane.encode import Resource, combined

Resources = Mapping[str, Resource]
WILDCARD = "*"


class Grouping(Enum):
    """What a response holds."""

    CHANGES = "what changed, and the names of what is gone"
    """Incremental."""
    EVERYTHING = "every resource, and what is not there is gone"
    """State of the world, clusters and listeners."""
    PARTS = "what changed; that something is gone cannot be said"
    """State of the world, endpoints and routes."""


@dataclass(frozen=True)
class Content:
    """Of a response."""

    resources: Resources
    removed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Sent:
    """A response that waits for its acknowledgement."""

    nonce: str
    version: str
    content: Content
    fresh: frozenset[str]
    """Names of its resources that the client did not have in this version."""


@dataclass
class Subscription:
    grouping: Grouping
    wildcard: bool = False
    was_named: bool = False
    """Whether the client ever named resources; if not, a request without names asks for all."""
    names: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    """Names that must be answered even where nothing changed."""
    unanswered: bool = False
    """Whether the client must hear something even where there is nothing."""
    held: dict[str, Resource] = field(default_factory=dict)
    """What the client acknowledged, or said it has."""
    refused: dict[str, str] = field(default_factory=dict)
    """Versions that the client refused, by name: not sent again."""
    sent: Sent | None = None
    last_nonce: str = ""
    acknowledged: str = ""
    """The version of the last response that was acknowledged."""

    def subscribe(self, names: Iterable[str], *, answered: Iterable[str] = ()) -> None:
        """``answered``: names of which the client said what it has."""
        fresh = set(names)
        self.was_named = self.was_named or bool(fresh)
        if WILDCARD in fresh:
            self.unanswered = self.unanswered or not self.wildcard
            self.wildcard = True
            fresh.discard(WILDCARD)
        self.names |= fresh
        self.asked |= fresh.difference(answered)

    def unsubscribe(self, names: Iterable[str]) -> None:
        gone = set(names)
        if WILDCARD in gone:
            self.wildcard = False
            gone.discard(WILDCARD)
        if self.wildcard:
            # The client does not know whether the wildcard covers them.
            self.asked |= gone & self.names
        else:
            self.asked -= gone
        self.names -= gone
        self._forget()

    def acknowledge(self) -> None:
        """The client took what was sent last."""
        if self.sent is None:
            return
        content = self.sent.content
        if self.grouping is Grouping.EVERYTHING:
            self.held = {}
        self.held = {name: item for name, item in self.held.items() if name not in content.removed}
        self.held.update(content.resources)
        self.refused = {name: version for name, version in self.refused.items() if name not in content.resources}
        self.acknowledged = self.sent.version
        self.sent = None
        self._forget()

    def refuse(self, message: str) -> list[str]:
        """The client refused what was sent last: the names of the resources it refused.

        Those that the message does not name are sent again without the others, for whether it took them is not known.
        """
        if self.sent is None:
            return []
        content = self.sent.content
        bad = mentioned(message, self.sent.fresh or content.resources.keys())
        self.refused.update({name: content.resources[name].version for name in bad})
        # What is gone was said once; else it would be said again and again.
        whole = self.grouping is Grouping.EVERYTHING
        gone = self.held.keys() - content.resources.keys() if whole else content.removed
        self.held = {name: item for name, item in self.held.items() if name not in gone}
        self.sent = None
        return sorted(bad)

    def due(self, wanted: Resources) -> Content | None:
        """What the client is to be sent now; None while it has to acknowledge something, or has all."""
        if self.sent:
            return None
        scope = self.scope(wanted)
        if self.grouping is Grouping.EVERYTHING:
            best = {name: self._best(item) for name, item in scope.items()}
            content = Content({name: item for name, item in best.items() if item is not None})
            news = bool(self.asked) or _versions(content.resources) != _versions(self.held)
        else:
            changed = {name: item for name, item in scope.items() if item.value and self._is_due(item)}
            # In an answer to a wildcard that covers it no more, a name is gone although nobody holds it.
            missing = (self.held.keys() | self.asked) - scope.keys()
            removed = frozenset(missing if self.grouping is Grouping.CHANGES else ())
            content = Content(changed, removed)
            news = bool(changed or removed)
        return content if news or self.unanswered else None

    def send(self, content: Content, nonce: str, version: str) -> None:
        """The content is on its way."""
        fresh = {name for name, item in content.resources.items() if self._version(name) != item.version}
        self.sent = Sent(nonce, version, content, frozenset(fresh))
        self.last_nonce = nonce
        self.asked -= content.resources.keys() | content.removed
        self.unanswered = False
        if self.grouping is not Grouping.CHANGES:
            self.asked.clear()

    def scope(self, wanted: Resources) -> Resources:
        """The resources the client asked for, of those there are."""
        if self.wildcard:
            return wanted
        return {name: wanted[name] for name in self.names if name in wanted}

    def kept_back(self, wanted: Resources) -> list[str]:
        """Names of what the client has otherwise than it is meant to, because it refused that."""
        return sorted(
            name
            for name, version in self.refused.items()
            if name in wanted and wanted[name].version == version and self._version(name) != version
        )

    def _best(self, item: Resource) -> Resource | None:
        """The resource, or where the client refused it, what it has."""
        return self.held.get(item.name) if self.refused.get(item.name) == item.version else item

    def _is_due(self, item: Resource) -> bool:
        if item.name in self.asked:
            return True
        return self._version(item.name) != item.version != self.refused.get(item.name)

    def _version(self, name: str) -> str | None:
        return self.held[name].version if name in self.held else None

    def _forget(self) -> None:
        """What the client asks for no longer, it may drop."""
        if not self.wildcard:
            self.held = {name: item for name, item in self.held.items() if name in self.names}
            self.refused = {name: version for name, version in self.refused.items() if name in self.names}


def mentioned(message: str, names: Iterable[str]) -> set[str]:
    """The names that a client's error is about: those followed by a colon, else those it has at all, else every name.

    Envoy writes ``Error adding/updating cluster(s) b: …, c: …``, and of routes and endpoints often no name.
    """
    names = set(names)
    for end in (r":(?!\d)", r"(?![\w.-])"):
        found = {name for name in names if re.search(rf"(?<![\w.-]){re.escape(name)}{end}", message)}
        if found:
            return found
    return names


def content_version(resources: Resources) -> str:
    """The version of a type of resources: from that of each."""
    return combined(_versions(resources))


def _versions(resources: Resources) -> dict[str, str]:
    return {name: item.version for name, item in resources.items()}
