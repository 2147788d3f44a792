# SPDX-License-Identifier: GPL-3.0-or-later
"""Which step of a change the streams may take: the next one begins when all have passed the one before, or are late.

Without it a caller could be told of a port on which the proxy it calls does not listen yet.
"""

from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from control_plane.streams import LAST, Stream


class Walker(Protocol):
    """A connected proxy."""

    stream: Stream

    def wake(self) -> None:
        """There may be something to send."""


Member = TypeVar("Member", bound=Walker)


class Lockstep(Generic[Member]):
    def __init__(self, wait: Callable[[Callable[[], None]], Callable[[], None]]) -> None:
        """``wait`` calls a function when the time limit of a step is over, unless what it gives back is called."""
        self.step = LAST
        self._wait = wait
        self._cancel: Callable[[], None] = lambda: None
        self._members: set[Member] = set()
        self._waiting: set[Member] = set()
        """Members that have not passed the step; nobody waits for those that are late."""
        self._late: set[Member] = set()

    def __contains__(self, member: Member) -> bool:
        return member in self._members

    def start(self, members: Iterable[Member]) -> None:
        """A change begins for these; those that are still at an earlier one go on from where they are."""
        self._members |= set(members)
        self._late.clear()
        self._enter(0)
        self._advance()

    def progressed(self, member: Member) -> None:
        """A member heard from its client."""
        if member in self._members and member.stream.allowed < self.step:
            member.stream.allow(self.step)
        if member in self._waiting and member.stream.has_passed(self.step):
            self._waiting.discard(member)
            self._advance()

    def leave(self, member: Member) -> None:
        self._members.discard(member)
        self._late.discard(member)
        if member in self._waiting:
            self._waiting.discard(member)
            self._advance()

    def _advance(self) -> None:
        while not self._waiting and self._members:
            if self.step == LAST:
                self._cancel()
                self._members.clear()
                return
            self._enter(self.step + 1)

    def _enter(self, step: int) -> None:
        self._cancel()
        self.step = step
        for member in self._members:
            member.stream.allow(step)
            member.wake()
        self._waiting = {each for each in self._members - self._late if not each.stream.has_passed(step)}
        if self._waiting:
            self._cancel = self._wait(self._time_is_up)

    def _time_is_up(self) -> None:
        self._late |= self._waiting
        self._waiting.clear()
        for member in self._late:
            member.stream.hurry()
            member.wake()
        self._advance()
