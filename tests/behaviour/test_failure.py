"""What callers notice when replicas fail, hang or vanish: every key of the model that is about failures."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from behaviour.elsewhere import elsewhere
from behaviour.envoys import ECHO, Answer, Mesh, at_once, get, names, running, send, serve, statuses
from behaviour.load import Load
from behaviour.machine import wait_until

Run = Callable[[str], Mesh]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Run]:
    """Starts a mesh for one test."""
    with contextlib.ExitStack() as stack:
        yield lambda inventory: stack.enter_context(running(tmp_path, inventory))


def failed_in_a_thousand(load: Load, count: int) -> float:
    assert load.report.count >= count
    return 1000 * len(load.report.failures) / load.report.count


# A replica dies


def test_a_replica_killed_without_grace_costs_idempotent_requests_nothing(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: web, port: 8081, replicas: 3}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: web, idempotent: true}]}
""")
    with Load(running_mesh.ports["FRONT"], kept=8, new=4) as load:
        load.wait_for(500)
        os.kill(running_mesh.pid("web-2"), signal.SIGKILL)
        load.wait_for(2500)
    assert failed_in_a_thousand(load, 3000) <= 1


def test_a_replica_that_vanishes_costs_idempotent_requests_nothing(mesh: Run) -> None:
    """No refusal, no reset: its address just never answers again."""
    with elsewhere(3) as network:
        for address in network.addresses:
            network.serve("http", address, 8081, address)
        listed = ", ".join(f"{{address: {address}}}" for address in network.addresses)
        running_mesh = mesh(f"""
services:
  - {{name: web, port: 8081, discovery: static, endpoints: [{listed}]}}
front_proxies:
  - {{name: front, listeners: [{{port: FRONT}}], routes: [{{prefix: /, service: web, idempotent: true}}]}}
""")
        with Load(running_mesh.ports["FRONT"], kept=8, new=4) as load:
            load.wait_for(500)
            assert set(load.report.hostnames()) == set(network.addresses)
            network.vanish(network.addresses[1])
            load.wait_for(2500)
        assert failed_in_a_thousand(load, 3000) <= 1


# Retries

RETRIES = """
services:
  - name: web
    port: 8081
    replicas: 5
    sidecar: false
    discovery: static
    lb_policy: ring_hash
    hash_on: {header: x-user}
    circuit_breakers: {max_retries: 1000}
  - {name: lone, port: 8081, sidecar: false, discovery: static, circuit_breakers: {max_retries: 1000}}
  - {name: pair, port: 8081, replicas: 2, sidecar: false, discovery: static, circuit_breakers: {max_retries: 1000}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /statuses, service: web, retries: {statuses: [409]}}
      - {prefix: /same, service: web, retries: {on: [5xx], count: 1, previous_hosts: false}}
      - {prefix: /other, service: web, retries: {on: [5xx], count: 1}}
      - {prefix: /count, service: lone, retries: {on: [5xx], count: 6, backoff: 1ms}}
      - {prefix: /slow-start, service: lone, retries: {on: [5xx], count: 1, backoff: 1s}}
      - {prefix: /even, service: lone, retries: {on: [5xx], count: 10, backoff: {base: 20ms, max: 20ms}}}
      - {prefix: /try, service: pair, retries: {on: [gateway-error], per_try_timeout: 200ms}}
      - {prefix: /silent, service: pair, retries: {on: [gateway-error], per_try_idle_timeout: 200ms}}
      - {prefix: /hedged, service: pair, idempotent: true, retries: {per_try_timeout: 200ms, hedge: true}}
      - {prefix: /cut, service: pair, idempotent: true, timeout: 3s, retries: {per_try_timeout: 200ms}}
"""


@pytest.fixture(scope="module")
def retries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("retries"), RETRIES) as running_mesh:
        yield running_mesh


@pytest.fixture
def well(retries: Mesh) -> Mesh:
    """The mesh of these tests, with nothing left of the one before."""
    for application in retries.applications.values():
        application.answer = lambda _path: 200
        application.paths.clear()
    return retries


def tries(running_mesh: Mesh, path: str) -> int:
    return sum(application.paths.count(path) for application in running_mesh.applications.values())


def test_statuses_are_retried_on_another_replica(well: Mesh) -> None:
    front = well.front()
    owner = well.applications[get(front, "/statuses", {"x-user": "a"}).name]
    owner.answer = lambda _rest: 409
    assert get(front, "/statuses", {"x-user": "a"}).name != owner.name
    assert get(front, "/other", {"x-user": "a"}).status == 409
    owner.answer = lambda _rest: 404
    assert get(front, "/statuses", {"x-user": "a"}).status == 404


def test_a_retry_avoids_the_replica_that_failed(well: Mesh) -> None:
    """Hashing would choose the same one again."""
    front = well.front()
    owner = well.applications[get(front, "/other", {"x-user": "a"}).name]
    owner.answer = lambda _rest: 500
    assert get(front, "/other", {"x-user": "a"}).status == 200
    assert get(front, "/same", {"x-user": "a"}).status == 500
    assert owner.paths.count("/same") == 2


def test_the_count_is_of_tries_after_the_first(well: Mesh) -> None:
    well.applications["lone-1"].answer = lambda _rest: 500
    assert get(well.front(), "/count").status == 500
    assert tries(well, "/count") == 7


def test_backoff_says_how_long_to_wait_between_tries(well: Mesh) -> None:
    well.applications["lone-1"].answer = lambda _rest: 500
    # Random, up to the base: by default 25 ms.
    assert max(at_once(12, lambda: seconds(lambda: get(well.front(), "/slow-start")))) > 0.2
    # Without its limit it would grow to ten times the base.
    assert seconds(lambda: get(well.front(), "/even")) < 0.35
    assert tries(well, "/even") == 11


@pytest.mark.parametrize("path", ["/try", "/silent"])
def test_a_try_that_takes_too_long_is_made_again_elsewhere(well: Mesh, path: str) -> None:
    well.applications["pair-2"].answer = late(4)
    took = [seconds(lambda: names(well.front(), 1, path)) for _rest in range(2)]
    assert 0.2 <= sum(took) < 1


def test_hedging_waits_for_the_first_try_beside_the_second(well: Mesh) -> None:
    for name in ("pair-1", "pair-2"):
        well.applications[name].answer = late(0.5)
    # Every try is cut, until none is left.
    assert get(well.front(), "/cut").status == 504
    answer: list[Answer] = []
    assert 0.5 <= seconds(lambda: answer.append(get(well.front(), "/hedged"))) < 1
    assert answer[0].status == 200
    assert tries(well, "/hedged") > 1


def late(delay: float) -> Callable[[str], int]:
    """An application that takes its time."""
    return lambda _path: time.sleep(delay) or 200


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


# Limits of what is under way

LIMITS = """
services:
  - {name: few, port: 8081, sidecar: false, circuit_breakers: 4}
  - {name: waiting, port: 8081, sidecar: false, circuit_breakers: {max_connections: 2, max_pending_requests: 3}}
  - {name: free, port: 8081, sidecar: false, circuit_breakers: {max_retries: 1000}}
  - {name: counted, port: 8081, sidecar: false, circuit_breakers: {max_retries: 2}}
  - {name: budgeted, port: 8081, sidecar: false, circuit_breakers: {retry_budget: {percent: 10, min_concurrency: 1}}}
  - {name: behind, port: 8081, sidecar: {circuit_breakers: {max_requests: 3}}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /few, service: few}
      - {prefix: /waiting, service: waiting}
      - {prefix: /free, service: free, retries: {on: [5xx], count: 3}}
      - {prefix: /counted, service: counted, retries: {on: [5xx], count: 3}}
      - {prefix: /budgeted, service: budgeted, retries: {on: [5xx], count: 3}}
"""


def test_circuit_breakers_answer_at_once_what_is_beyond(mesh: Run) -> None:
    running_mesh = mesh(LIMITS)
    for application in running_mesh.applications.values():
        application.answer = late(0.4)

    def shares(where: str, path: str) -> dict[int, int]:
        answers = at_once(12, lambda: get(where, path))
        assert all(answer.headers["x-envoy-overloaded"] == "true" for answer in answers if answer.status == 503)
        return Counter(answer.status for answer in answers)

    assert shares(running_mesh.front(), "/few") == {200: 4, 503: 8}
    assert shares(running_mesh.front(), "/waiting") == {200: 5, 503: 7}
    assert running_mesh.applications["waiting-1"].connections == 2
    assert shares(running_mesh.at("behind-1", 8786), "/") == {200: 3, 503: 9}


def test_a_budget_keeps_retries_from_multiplying_the_load(mesh: Run) -> None:
    running_mesh = mesh(LIMITS)
    sent = 20
    for application in running_mesh.applications.values():
        application.answer = lambda _path: time.sleep(0.1) or 500

    def asked(path: str) -> int:
        assert {answer.status for answer in at_once(sent, lambda: get(running_mesh.front(), path))} == {500}
        return tries(running_mesh, path)

    assert asked("/free") == 4 * sent
    assert sent < asked("/budgeted") <= 1.5 * sent
    assert sent < asked("/counted") <= 1.5 * sent


# Time limits

TIMES = """
services:
  - {name: web, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
  - {name: queue, port: 9000, protocol: tcp, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: queue}]
    routes:
      - {grpc: api.Echo, service: echo, grpc_timeout_max: 400ms}
      - {prefix: /silent, service: web, timeout: 0, idle_timeout: 300ms}
      - {prefix: /, service: web, timeout: 0}
    upstreams: [{service: queue, idle_timeout: 300ms}]
"""


def test_what_stays_silent_is_ended(mesh: Run) -> None:
    running_mesh = mesh(TIMES)
    running_mesh.applications["web-1"].answer = late(1)
    assert 0.3 <= seconds(lambda: statuses(running_mesh.front(), 1, "/silent")) < 0.9
    assert get(running_mesh.front(), "/silent").status == 504
    assert get(running_mesh.front()).status == 200

    host, _rest, port = running_mesh.front("2").partition(":")
    with socket.create_connection((host, int(port)), timeout=3) as connection:
        for _rest in range(4):
            time.sleep(0.15)
            connection.sendall(b"x")
            assert connection.recv(100) == b"queue-1:x"
        assert 0.2 <= seconds(lambda: connection.recv(100)) < 1


def test_callers_of_grpc_get_no_longer_deadline_than_the_route_allows(mesh: Run) -> None:
    running_mesh = mesh(TIMES)
    application = running_mesh.applications["echo-1"]
    with grpc.insecure_channel(running_mesh.front()) as channel:
        echo = channel.unary_unary(ECHO)
        assert echo(b"", timeout=5) == b""
        application.answer = late(1.5)
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            echo(b"", timeout=5)
        assert 0.3 <= time.monotonic() - began < 1
        print(application.deadlines)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
