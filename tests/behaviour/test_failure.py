"""What callers notice when replicas fail, hang or vanish: every key of the model that is about failures."""

from __future__ import annotations

import contextlib
import itertools
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
from behaviour.envoys import Answer, Mesh, at_once, code, get, names, running, send, statuses
from behaviour.load import Load
from behaviour.machine import wait_until

Run = Callable[[str], Mesh]

MERGE_SECONDS = 1.2
"""Envoy acts at once on the first replica whose health changes, on more of them together a second later."""


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
      - {prefix: /default, service: lone, retries: {on: [5xx]}}
      - {prefix: /repeatable, service: lone, idempotent: true}
      - {prefix: /late, service: lone, retries: {on: [5xx], count: 1, backoff: 1s}}
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
    assert get(well.front(), "/default").status == 500
    assert tries(well, "/default") == 3
    well.applications["lone-1"].answer = lambda _rest: 503
    assert get(well.front(), "/repeatable").status == 503
    assert tries(well, "/repeatable") == 5


def test_backoff_says_how_long_to_wait_between_tries(well: Mesh) -> None:
    well.applications["lone-1"].answer = lambda _rest: 500
    # Random, up to the base: by default 25 ms.
    assert max(at_once(12, lambda: seconds(lambda: get(well.front(), "/late")))) > 0.2
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
    assert 0.45 <= seconds(lambda: answer.append(get(well.front(), "/hedged"))) < 1
    assert answer[0].status == 200
    assert tries(well, "/hedged") > 1


def test_idempotent_calls_of_grpc_are_repeated_when_an_application_is_gone(mesh: Run) -> None:
    """Its sidecar is there, and tells callers of gRPC by a status of theirs."""
    running_mesh = mesh("""
services:
  - {name: echo, port: 8081, protocol: grpc, replicas: 2}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {grpc: api.Echo, service: echo, idempotent: true, headers: [{name: x-repeat, present: true}]}
      - {grpc: api.Echo, service: echo}
    upstreams: [{service: echo, outlier_detection: false}]
""")
    running_mesh.applications["echo-2"].stop()
    with grpc.insecure_channel(running_mesh.front()) as channel:
        assert {code(channel, ("x-repeat", "yes")) for _rest in range(8)} == {grpc.StatusCode.OK}
        ends = Counter(code(channel) for _rest in range(8))
    assert ends == {grpc.StatusCode.OK: 4, grpc.StatusCode.UNAVAILABLE: 4}


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
  - {name: spread, port: 8081, replicas: 3, sidecar: false, discovery: static}
  - {name: behind, port: 8081, sidecar: {circuit_breakers: {max_requests: 3}}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /few, service: few}
      - {prefix: /waiting, service: waiting}
      - {prefix: /spread, service: spread}
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


def test_by_default_more_requests_than_envoys_three_may_be_tried_again_at_once(mesh: Run) -> None:
    running_mesh = mesh(LIMITS)
    running_mesh.applications["spread-2"].stop()
    for _rest in range(3):
        answers = at_once(30, lambda: get(running_mesh.front(), "/spread"))
        assert Counter(answer.status for answer in answers) == {200: 30}


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
    assert 0.25 <= seconds(lambda: statuses(running_mesh.front(), 1, "/silent")) < 0.9
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
        assert code(channel, timeout=5) == grpc.StatusCode.OK
        application.answer = late(1.5)
        ends: list[grpc.StatusCode] = []
        for timeout in (5, None):
            assert 0.25 <= seconds(lambda timeout=timeout: ends.append(code(channel, timeout=timeout))) < 1
    assert ends == [grpc.StatusCode.DEADLINE_EXCEEDED] * 2
    assert application.deadlines[:2] == [pytest.approx(0.35, abs=0.05)] * 2


# Replicas that fail are taken out of use

OUTLIERS = """
services:
  - &five
    name: any-5xx
    port: 8081
    replicas: 5
    sidecar: false
    discovery: static
    outlier_detection: {consecutive_5xx: 3, base_ejection_time: 600ms, interval: 100ms}
  - name: capped
    <<: *five
    outlier_detection: {consecutive_5xx: 1, base_ejection_time: 1s, interval: 500ms, max_ejection_time: 1s}
  - {<<: *five, name: gateway, outlier_detection: {consecutive_gateway_failure: 3}}
  - {<<: *five, name: local, outlier_detection: {consecutive_local_origin_failure: 3}}
  - {<<: *five, name: kept, outlier_detection: false}
  - {<<: *five, name: repeatable, outlier_detection: null}
  - {<<: *five, name: most, outlier_detection: {consecutive_5xx: 1, max_ejection_percent: 40}}
  - {<<: *five, name: rate, outlier_detection: {success_rate: {request_volume: 5}, errors: [429]}}
  - {<<: *five, name: rate-5xx, outlier_detection: {success_rate: {request_volume: 5}}}
  - {<<: *five, name: rate-far, outlier_detection: {success_rate: {request_volume: 5, stdev_factor: 3}, errors: [429]}}
  - {<<: *five, name: rate-six, outlier_detection: {success_rate: {request_volume: 5, minimum_hosts: 6}, errors: [429]}}
  - {<<: *five, name: share, outlier_detection: {failure_percentage: {threshold: 30, request_volume: 5}}}
  - name: share-six
    <<: *five
    outlier_detection: {failure_percentage: {threshold: 30, request_volume: 5, minimum_hosts: 6}}
  - {<<: *five, name: share-high, outlier_detection: {failure_percentage: {threshold: 80, request_volume: 5}}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /any-5xx, service: any-5xx}
      - {prefix: /capped, service: capped}
      - {prefix: /gateway, service: gateway}
      - {prefix: /local, service: local, retries: 0}
      - {prefix: /kept, service: kept, idempotent: true, retries: 0}
      - {prefix: /repeatable, service: repeatable, idempotent: true, retries: 0}
      - {prefix: /most, service: most}
      - {prefix: /rate/, service: rate}
      - {prefix: /rate-5xx/, service: rate-5xx}
      - {prefix: /rate-far/, service: rate-far}
      - {prefix: /rate-six/, service: rate-six}
      - {prefix: /share/, service: share}
      - {prefix: /share-six/, service: share-six}
      - {prefix: /share-high/, service: share-high}
"""


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("outliers"), OUTLIERS) as running_mesh:
        yield running_mesh


def test_answers_5xx_in_a_row_take_a_replica_out_of_use_until_it_may_return(outliers: Mesh) -> None:
    ill = outliers.applications["any-5xx-2"]

    def nobody_is_out(service: str) -> Callable[[], bool]:
        return lambda: not outliers.stat("front-1", f"cluster.{service}.outlier_detection.ejections_active")

    ill.answer = lambda _rest: 500
    assert statuses(outliers.front(), 40, "/any-5xx") == {200: 37, 500: 3}
    ill.answer = lambda _rest: 200
    assert 0.3 < seconds(lambda: wait_until(nobody_is_out("any-5xx"), "it may return")) < 1
    wait_until(lambda: ill.name in names(outliers.front(), 5, "/any-5xx"), "it is used again")

    # The second time would be twice as long.
    outliers.applications["capped-2"].answer = lambda _rest: 500
    times = "cluster.capped.outlier_detection.ejections_enforced_total"
    wait_until(lambda: names(outliers.front(), 5, "/capped") and outliers.stat("front-1", times) == 2, "twice")
    assert seconds(lambda: wait_until(nobody_is_out("capped"), "it may return")) < 1.8


def test_gateway_failures_count_apart_from_other_errors(outliers: Mesh) -> None:
    ill = outliers.applications["gateway-2"]
    ill.answer = lambda _rest: 500
    assert statuses(outliers.front(), 40, "/gateway") == {200: 32, 500: 8}
    ill.answer = lambda _rest: 503
    assert statuses(outliers.front(), 40, "/gateway") == {200: 37, 503: 3}


def test_connections_that_fail_take_a_replica_out_of_use(outliers: Mesh) -> None:
    outliers.applications["local-2"].stop()
    outliers.applications["kept-2"].stop()
    outliers.applications["repeatable-2"].stop()
    assert statuses(outliers.front(), 40, "/local") == {200: 37, 503: 3}
    # By default, where requests may be repeated.
    assert statuses(outliers.front(), 40, "/repeatable") == {200: 38, 503: 2}
    assert statuses(outliers.front(), 40, "/kept") == {200: 32, 503: 8}


def test_so_many_replicas_stay_in_use_whatever_they_answer(outliers: Mesh) -> None:
    for number in range(1, 5):
        outliers.applications[f"most-{number}"].answer = lambda _rest: 500
    # Two of the five are out, each after one answer.
    statuses(outliers.front(), 10, "/most")
    time.sleep(MERGE_SECONDS)
    assert statuses(outliers.front(), 30, "/most") == {200: 10, 500: 20}


def test_a_replica_that_answers_429_more_than_others_is_taken_out_of_use(outliers: Mesh) -> None:
    for name in ("rate", "rate-5xx", "rate-far", "rate-six"):
        outliers.applications[f"{name}-2"].answer = lambda _rest: 429
    assert spared(outliers, "rate", "rate-5xx", "rate-far", "rate-six") == {"rate": {"rate-2"}}


def test_a_replica_with_too_large_a_share_of_errors_is_taken_out_of_use(outliers: Mesh) -> None:
    for name in ("share", "share-high", "share-six"):
        half = itertools.cycle((200, 500))
        outliers.applications[f"{name}-2"].answer = lambda _rest, half=half: next(half)
    assert spared(outliers, "share", "share-high", "share-six") == {"share": {"share-2"}}


def spared(running_mesh: Mesh, *services: str) -> dict[str, set[str]]:
    """Replicas that get no requests a while after each got 20, by service."""
    for service in services:
        assert len(names(running_mesh.front(), 100, f"/{service}/")) == 5
    time.sleep(MERGE_SECONDS)
    found = {}
    for service in services:
        answered = names(running_mesh.front(), 20, f"/{service}/")
        missing = {f"{service}-{number}" for number in range(1, 6)} - set(answered)
        if missing:
            found[service] = missing
    return found


def test_panic_threshold_decides_when_unusable_replicas_are_better_than_none(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - &web
    name: default
    port: 8081
    replicas: 4
    sidecar: false
    discovery: static
    health_check: {interval: 100ms, unhealthy_interval: 100ms}
  - {<<: *web, name: never, panic_threshold: 0}
  - {<<: *web, name: half}
  - {<<: *web, name: soon, panic_threshold: 60}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /default, service: default}
      - {prefix: /never, service: never}
      - {prefix: /half, service: half}
      - {prefix: /soon, service: soon}
""")

    def healthy(services: dict[str, int]) -> Callable[[], bool]:
        return lambda: all(
            running_mesh.stat("front-1", f"cluster.{name}.membership_healthy") == count
            for name, count in services.items()
        )

    wait_until(healthy({"default": 4, "never": 4, "half": 4, "soon": 4}), "all are healthy")
    ill = [f"{name}-{number}" for name in ("default", "never") for number in (1, 2, 3)]
    for name in (*ill, "half-1", "half-2", "soon-1", "soon-2"):
        running_mesh.applications[name].answer = lambda path: 503 if path == "/healthz" else 200
    wait_until(healthy({"default": 1, "never": 1, "half": 2, "soon": 2}), "some are not healthy any more")
    time.sleep(MERGE_SECONDS)
    front = running_mesh.front()
    assert len(names(front, 12, "/default")) == 4
    assert names(front, 12, "/never") == {"never-4": 12}
    assert names(front, 12, "/half") == {"half-3": 6, "half-4": 6}
    assert len(names(front, 12, "/soon")) == 4


def test_a_new_replica_gets_its_share_bit_by_bit(mesh: Run) -> None:
    inventory = """
services:
  - &web {name: slow, port: 8081, replicas: 2, sidecar: false, discovery: eds, slow_start: 3s}
  - {<<: *web, name: soon, slow_start: {window: 3s, aggression: 50}}
  - {<<: *web, name: most, slow_start: {window: 3s, min_weight_percent: 95}}
  - {<<: *web, name: even, slow_start: null}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /slow, service: slow}
      - {prefix: /soon, service: soon}
      - {prefix: /most, service: most}
      - {prefix: /, service: even}
"""
    running_mesh = mesh(inventory)
    front = running_mesh.front()
    # The first ones were new too.
    time.sleep(3)
    running_mesh.change(inventory.replace("replicas: 2", "replicas: 3"))
    wait_until(lambda: "even-3" in names(front, 3), "the new replica is known")
    assert names(front, 60) == {"even-1": 20, "even-2": 20, "even-3": 20}
    assert names(front, 60, "/slow")["slow-3"] <= 10
    assert names(front, 60, "/most")["most-3"] >= 17
    assert names(front, 60, "/soon")["soon-3"] >= 17
    wait_until(lambda: names(front, 60, "/slow")["slow-3"] >= 19, "it has its whole share")


# Connections


def test_connections_are_replaced_by_age_by_use_and_when_idle(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: kept, port: 8081, sidecar: false}
  - {name: used, port: 8081, sidecar: false, connection: {max_requests: 2}}
  - {name: old, port: 8081, sidecar: false, connection: {max_duration: 300ms}}
  - {name: idle, port: 8081, sidecar: false, connection: {idle_timeout: 300ms}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /kept, service: kept}
      - {prefix: /used, service: used}
      - {prefix: /old, service: old}
      - {prefix: /idle, service: idle}
""")

    def connections(name: str, pause: float) -> int:
        for _rest in range(6):
            assert get(running_mesh.front(), f"/{name}").status == 200
            time.sleep(pause)
        return running_mesh.applications[f"{name}-1"].connections

    assert connections("kept", 0) == 1
    assert connections("used", 0) == 3
    assert connections("idle", 0.1) == 1
    time.sleep(0.5)
    assert connections("idle", 0) == 2
    assert 2 <= connections("old", 0.12) < 6


def test_a_vanished_connection_is_given_up_in_the_time_that_was_set(mesh: Run) -> None:
    """Without keepalive and user timeout nobody notices, for a quarter of an hour and more."""
    with elsewhere(1) as network:
        (address,) = network.addresses
        network.serve("tcp", address, 9000, "queue")
        network.serve("http", address, 8081, "web")
        queue = f"port: 9000, protocol: tcp, discovery: static, endpoints: [{{address: {address}}}]"
        running_mesh = mesh(f"""
services:
  - {{name: patient, {queue}}}
  - {{name: probed, {queue}, connection: {{tcp_keepalive: {{time: 1s, interval: 1s, probes: 1}}}}}}
  - {{name: timed, {queue}, connection: {{tcp_user_timeout: 1s}}}}
  - &web
    name: web
    port: 8081
    discovery: static
    endpoints: [{{address: {address}}}]
    connection: {{tcp_user_timeout: 1s}}
  - {{<<: *web, name: new, connect_timeout: 300ms}}
  - {{<<: *web, name: repeatable}}
front_proxies:
  - name: front
    listeners:
      - {{port: FRONT, protocol: tcp, service: patient}}
      - {{port: FRONT2, protocol: tcp, service: probed}}
      - {{port: FRONT3, protocol: tcp, service: timed}}
      - {{port: FRONT4}}
    routes:
      - {{prefix: /new, service: new, retries: 0}}
      - {{prefix: /repeatable, service: repeatable, retries: 0, idempotent: true}}
      - {{prefix: /, service: web, retries: 0}}
""")
        with contextlib.ExitStack() as stack:
            patient, probed, timed = (
                stack.enter_context(socket.create_connection(("127.0.0.1", running_mesh.ports[name]), timeout=8))
                for name in ("FRONT", "FRONT2", "FRONT3")
            )
            for connection in (patient, probed, timed):
                connection.sendall(b"x")
                assert connection.recv(100) == b"queue:x"
            assert get(running_mesh.front("4")).status == 200
            network.vanish(address)
            began = time.monotonic()
            patient.sendall(b"x")
            timed.sendall(b"x")
            for path in ("/new", "/repeatable"):
                assert 0.2 <= seconds(lambda path=path: statuses(running_mesh.front("4"), 1, path)) < 0.9
            # Of the request that is under way; others wait for a connection, which has a limit of its own.
            assert get(running_mesh.front("4")).status == 503
            assert 0.9 <= time.monotonic() - began < 4
            assert timed.recv(100) == b""
            # Nothing was sent on this one.
            assert probed.recv(100) == b""
            assert time.monotonic() - began < 6
            patient.settimeout(0.5)
            with pytest.raises(TimeoutError):
                patient.recv(100)


# Connections of TCP


def test_a_connection_is_tried_again_on_another_replica(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: queue, port: 9000, protocol: tcp, replicas: 3, sidecar: false, discovery: static}
  - name: app
    port: 8081
    upstreams: [{service: queue, port: 9001}]
front_proxies:
  - name: front
    listeners: [{port: FRONT, protocol: tcp, service: queue}]
    upstreams: [{service: queue, retries: 0}]
""")
    running_mesh.applications["queue-2"].stop()
    assert b"" not in {send(running_mesh.at("app-1", 9001), b"x") for _rest in range(6)}
    assert [send(running_mesh.front(), b"x") for _rest in range(6)].count(b"") == 2
