# SPDX-License-Identifier: GPL-3.0-or-later
"""What every proxy is meant to have, and the streams that bring it there."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from control_plane import encode, snapshots
from control_plane.lockstep import Lockstep
from control_plane.snapshots import Snapshot
from control_plane.streams import LAST, Stream

STEP_SECONDS = 2.0
"""How long a step of a change waits for proxies that do not answer."""
RESUME_SECONDS = 0.2
"""How long a proxy that comes back has to say what it has, before anything is taken from it."""

CallLater = Callable[[float, Callable[[], None]], Callable[[], None]]
"""Calls a function after some seconds, unless the function is called that it gives back."""


class Member(Protocol):
    """A connected proxy."""

    stream: Stream
    changed_at: float | None
    """When the oldest change was made that it has not acknowledged, by time.monotonic()."""

    def wake(self) -> None:
        """There may be something to send."""


@dataclass(frozen=True)
class Proxy:
    """A configuration; on Kubernetes all pods of a workload have the same one."""

    workload: str
    snapshot: Snapshot
    version: str
    content: str
    """Whatever its source calls this content."""

    @classmethod
    def of(cls, workload: str, snapshot: Snapshot, content: str = "") -> "Proxy":
        return cls(workload, snapshot, snapshots.version(snapshot), content)


@dataclass(frozen=True)
class Change:
    """What a new configuration changed: names of proxies."""

    changed: list[str]
    removed: list[str]
    at_once: bool
    """Whether it was endpoints alone, which no proxy has to wait for."""


class Store:
    """Wanted snapshots by proxy. Only the streams of proxies that change are woken."""

    def __init__(self, call_later: CallLater) -> None:
        self.proxies: dict[str, Proxy] = {}
        self.is_loaded = False
        self._call_later = call_later
        self._members: dict[str, set[Member]] = {}
        self._resuming: set[Member] = set()
        self._lockstep: Lockstep[Member] = Lockstep(lambda function: call_later(STEP_SECONDS, function))

    # configurations

    def set(self, proxies: Mapping[str, Proxy]) -> Change:
        """The whole mesh; all others are gone."""
        return self.update(proxies, self.proxies.keys() - proxies.keys())

    def update(self, proxies: Mapping[str, Proxy], removed: Collection[str] = ()) -> Change:
        """These proxies only; the rest stays. Whoever is connected keeps what it has where its proxy is removed."""
        old = self.proxies
        changed = sorted(name for name, proxy in proxies.items() if old.get(name) != proxy)
        gone = sorted(name for name in removed if name in old)
        # Whoever has no proxy yet has no streams that could be moved.
        at_once = all(
            snapshots.is_endpoints_only(old[name].snapshot, proxies[name].snapshot)
            if name in old
            else not self._members.get(name)
            for name in changed
        )
        self.proxies = {name: item for name, item in {**old, **proxies}.items() if name not in gone}
        self.is_loaded = True
        self._apply(changed, old, at_once)
        return Change(changed, gone, at_once)

    @property
    def version(self) -> str:
        """One version for the whole configuration."""
        return encode.combined({name: proxy.version for name, proxy in self.proxies.items()})

    def find(self, node_id: str, cluster: str) -> str | None:
        """The proxy of a node: the one of its id, else that of its cluster, which is Envoy's --service-cluster."""
        return next((name for name in (node_id, cluster) if name in self.proxies), None)

    # streams

    def join(self, proxy: str, member: Member) -> None:
        self._members.setdefault(proxy, set()).add(member)

    def leave(self, proxy: str, member: Member) -> None:
        members = self._members[proxy]
        members.discard(member)
        if not members:
            del self._members[proxy]
        self._resuming.discard(member)
        self._lockstep.leave(member)

    def progressed(self, member: Member) -> None:
        """The member's stream received something."""
        self._lockstep.progressed(member)
        waits = member.stream.step < LAST and member not in self._lockstep and member not in self._resuming
        if member.stream.is_resumed and waits:
            self._resuming.add(member)
            self._call_later(RESUME_SECONDS, lambda: self._resumed(member))

    def _resumed(self, member: Member) -> None:
        if member in self._resuming:
            self._resuming.discard(member)
            self._lockstep.start([member])

    def _apply(self, changed: list[str], old: Mapping[str, Proxy], at_once: bool) -> None:
        now = time.monotonic()
        members = [(name, member) for name in changed for member in self._members.get(name, ())]
        for name, member in members:
            member.changed_at = member.changed_at or now
            if at_once:
                member.stream.refresh(old[name].snapshot, self.proxies[name].snapshot)
            else:
                member.stream.change(self.proxies[name].snapshot)
            member.wake()
        if members and not at_once:
            self._resuming.difference_update(member for _name, member in members)
            self._lockstep.start(member for _name, member in members)
