# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is woken by a change, and that proxies go through it in step."""

from collections.abc import Callable
from typing import Any

import pytest
from clients import Client
from control_plane.snapshots import snapshot
from control_plane.store import RESUME_SECONDS, STEP_SECONDS, Proxy, Store
from control_plane.streams import Response, Stream
from mesh import Resources, resources


class Clock:
    """Functions that wait for their time, which comes when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        item = seconds, function
        self.waiting.append(item)
        return lambda: self.waiting.remove(item) if item in self.waiting else None

    def pass_by(self, seconds: float) -> None:
        due = [item for item in self.waiting if item[0] == seconds]
        assert due, "nobody waits"
        for item in due:
            self.waiting.remove(item)
            item[1]()


class Member(Client):
    """A client that the store knows."""

    def __init__(self, store: Store, proxy: str) -> None:
        super().__init__("delta", "")
        self.changed_at: float | None = None
        self.woken = 0
        self._store = store
        self.stream = Stream("delta", store.proxies[proxy].snapshot)
        store.join(proxy, self)

    def wake(self) -> None:
        self.woken += 1

    def _send(self, kind: str, request: Any) -> Any:
        facts = super()._send(kind, request)
        self._store.progressed(self)
        return facts

    def contents(self, response: Response) -> list[str]:
        return response.names

    def kinds(self) -> str:
        """What it was sent since it was asked last, kinds only."""
        return " ".join(text.partition(" ")[0] for text in self.take())


def mesh(**proxies: Resources) -> dict[str, Any]:
    return {name: Proxy.of(name, snapshot(item)) for name, item in proxies.items()}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    made = Store(clock.call_later)
    made.set(mesh(a=resources(1, "b", {"b": [5]}), z=resources(2, "b", {"b": [5]})))
    return made


def test_only_the_proxies_that_change_are_woken(store: Store) -> None:
    a, z = Member(store, "a").start(), Member(store, "z").start()
    change = store.set(mesh(a=resources(1, "b", {"b": [6]}), z=resources(2, "b", {"b": [5]})))
    assert (change.changed, change.removed, change.at_once) == (["a"], [], True)
    assert (a.woken, z.woken) == (1, 0)
    assert a.kinds() == "endpoints"
    assert z.kinds() == ""


def test_a_part_may_be_set_alone(store: Store) -> None:
    assert store.update(mesh(z=resources(2, "b", {"b": [6]})), removed=["a", "nobody"]).removed == ["a"]
    assert store.find("a", "") is None
    assert store.find("z-1234", "z") == "z"
    assert store.find("z", "a") == "z"


def test_a_proxy_that_is_removed_keeps_what_it_has(store: Store) -> None:
    a = Member(store, "a").start()
    store.set({})
    assert a.take() == []
    store.set(mesh(a=resources(1, "b", {"b": [7]})))
    assert a.acknowledge_all() == ["endpoints b"] or a.stream.is_done


def test_proxies_go_in_step(store: Store) -> None:
    a, z = Member(store, "a").start(), Member(store, "z").start()
    wanted = {port: resources(port, "c", {"c": [5]}) for port in (1, 2)}
    assert not store.set(mesh(a=wanted[1], z=wanted[2])).at_once
    assert (a.kinds(), z.kinds()) == ("clusters", "clusters")
    a.answer("clusters")
    a.ask("endpoints", "c")
    a.answer("endpoints")
    assert (a.kinds(), z.kinds()) == ("", ""), "a waits for z"
    z.answer("clusters")
    z.ask("endpoints", "c")
    z.answer("endpoints")
    assert (a.kinds(), z.kinds()) == ("routes", "routes")
    z.answer("routes")
    assert z.kinds() == ""
    a.answer("routes")
    assert (a.kinds(), z.kinds()) == ("clusters endpoints", "clusters endpoints")
    a.acknowledge_all()
    z.acknowledge_all()
    assert a.stream.is_done
    assert z.stream.is_done


def test_nobody_waits_for_the_slow_for_long(store: Store, clock: Clock) -> None:
    a, z = Member(store, "a").start(), Member(store, "z").start()
    store.set(mesh(a=resources(1, "c", {"c": [5]}), z=resources(2, "c", {"c": [5]})))
    a.acknowledge_all()
    a.ask("endpoints", "c")
    a.acknowledge_all()
    assert z.kinds() == "clusters"
    clock.pass_by(STEP_SECONDS)
    assert a.acknowledge_all() != []
    assert a.stream.is_done, "one limit, not one for each step"
    assert z.kinds() == "", "what it did not acknowledge stands before the rest"
    z.acknowledge_all()
    z.ask("endpoints", "c")
    z.acknowledge_all()
    assert z.stream.is_done
    assert clock.waiting == []


def test_nobody_waits_for_those_that_go_or_refuse(store: Store) -> None:
    a, y, z = Member(store, "a").start(), Member(store, "z").start(), Member(store, "z").start()
    store.set(mesh(a=resources(1, "c", {"c": [5]}), z=resources(2, "c", {"c": [5]})))
    a.acknowledge_all()
    a.ask("endpoints", "c")
    a.acknowledge_all()
    z.take()
    z.answer("clusters", error="no")
    assert a.take() == []
    store.leave("z", y)
    assert a.acknowledge_all() != []
    assert a.stream.is_done
    assert z.take() == []
    assert z.stream.is_stopped


def test_endpoints_do_not_wait_for_a_change_that_goes_on(store: Store) -> None:
    a, z = Member(store, "a").start(), Member(store, "z").start()
    store.set(mesh(a=resources(1, "b", {"b": [5], "c": [5]}), z=resources(2, "c", {"c": [5]})))
    z.take()
    assert store.update(mesh(a=resources(1, "b", {"b": [9], "c": [5]}))).at_once
    assert [text for text in a.take() if text.startswith("endpoints")]


def test_a_proxy_that_connects_during_a_change_has_the_target_at_once(store: Store) -> None:
    Member(store, "z").start()
    store.set(mesh(a=resources(1, "b", {"b": [5]}), z=resources(2, "c", {"c": [5]})))
    late = Member(store, "z")
    assert late.ask("clusters") == ["clusters c"]


def test_nothing_is_taken_before_a_proxy_that_comes_back_has_said_what_it_has(store: Store, clock: Clock) -> None:
    back = Member(store, "a")
    wanted = store.proxies["a"].snapshot
    assert back.ask("clusters", has={"b": wanted["clusters"]["b"].version, "gone": "1"}) == []
    assert back.ask("endpoints", "b", has={"b": wanted["endpoints"]["b"].version}) == []
    clock.pass_by(RESUME_SECONDS)
    assert back.take() == ["clusters -gone"]
    back.acknowledge_all()
    assert back.stream.is_done
    assert clock.waiting == []


def test_those_that_come_back_go_in_step_too(store: Store, clock: Clock) -> None:
    """After a restart of the server with another configuration."""
    a, z = Member(store, "a"), Member(store, "z")
    for member in (a, z):
        assert member.ask("clusters", has={"gone": "1"}) == ["clusters b"]
        assert member.ask("endpoints", "b") == ["endpoints b"]
        assert member.ask("listeners", has={"in": "1"}) == []
        assert member.ask("routes", "in", has={"in": "1"}) == []
    clock.pass_by(RESUME_SECONDS)
    assert a.acknowledge_all() == []
    assert z.acknowledge_all() == ["listeners in", "routes in"]
    assert a.acknowledge_all() == ["listeners in", "routes in", "clusters -gone"]
    assert z.acknowledge_all() == ["clusters -gone"]
