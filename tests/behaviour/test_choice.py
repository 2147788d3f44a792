"""Which replica, version or copy a request meets, and what it is told on its way."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from behaviour.envoys import Mesh, ask, at_once, code, get, names, running, send, statuses, upgraded
from behaviour.machine import wait_until

Run = Callable[[str], Mesh]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Run]:
    """Starts a mesh for one test."""
    with contextlib.ExitStack() as stack:
        yield lambda inventory: stack.enter_context(running(tmp_path, inventory))


def services(counter: Counter[str]) -> Counter[str]:
    """Answers by service, of those by replica."""
    found: Counter[str] = Counter()
    for name, count in counter.items():
        found[name.rpartition("-")[0]] += count
    return found


# Replicas


def test_lb_policies_choose_each_in_its_way(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - &web {name: robin, port: 8081, replicas: 3, sidecar: false, discovery: static}
  - {<<: *web, name: chance, lb_policy: random}
  - {<<: *web, name: least, lb_policy: least_request, replicas: 2}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes: [{prefix: /robin, service: robin}, {prefix: /chance, service: chance}, {prefix: /least, service: least}]
""")
    front = running_mesh.front()
    assert names(front, 30, "/robin") == {"robin-1": 10, "robin-2": 10, "robin-3": 10}

    with contextlib.closing(http.client.HTTPConnection(*front.split(":"), timeout=10)) as connection:
        order = [ask(connection, "/chance").name for _rest in range(90)]
    assert all(15 <= count <= 50 for count in Counter(order).values())
    assert any(one == other for one, other in itertools.pairwise(order))

    running_mesh.applications["least-1"].answer = lambda _path: time.sleep(0.3) or 200
    # Callers that ask again as soon as they are answered: at one and the same moment both replicas would get as many.
    asked = at_once(8, lambda: [get(front, "/least") for _rest in range(5)])
    shares = Counter(answer.name for answers in asked for answer in answers)
    assert shares["least-2"] > shares["least-1"]


@pytest.mark.parametrize("policy", ["ring_hash", "maglev"])
def test_hashing_keeps_values_where_they_are_when_another_replica_goes(mesh: Run, policy: str) -> None:
    inventory = f"""
services:
  - &web
    name: web
    port: 8081
    replicas: 4
    sidecar: false
    discovery: eds
    lb_policy: {policy}
    hash_on: {{header: x-user}}
  - {{<<: *web, name: own, hash_on: {{cookie: session}}}}
front_proxies:
  - name: front
    listeners: [{{port: FRONT}}]
    routes: [{{prefix: /cookie, service: own}}, {{prefix: /, service: web}}]
"""
    running_mesh = mesh(inventory)
    front = running_mesh.front()

    def owners() -> dict[int, str]:
        with contextlib.closing(http.client.HTTPConnection(*front.split(":"), timeout=10)) as connection:
            return {user: ask(connection, "/", {"x-user": str(user)}).name for user in range(80)}

    before = owners()
    assert len(set(before.values())) == 4
    assert owners() == before
    running_mesh.change(inventory.replace("replicas: 4", "replicas: 3"))
    wait_until(lambda: "web-4" not in owners().values(), "the fourth replica is not used any more")
    after = owners()
    stayed = [user for user, name in before.items() if name != "web-4"]
    # If all were dealt anew, one in three would stay. Envoy's ring has more places for each replica that is left.
    assert sum(after[user] == before[user] for user in stayed) >= 0.6 * len(stayed)

    # A browser that keeps the cookie it was given keeps its replica.
    first = get(front, "/cookie")
    assert "Path=/" in first.headers["set-cookie"]
    cookie = first.headers["set-cookie"].partition(";")[0]
    assert names(front, 5, "/cookie", {"cookie": cookie}) == {first.name: 5}
    assert len({get(front, "/cookie").name for _rest in range(30)}) > 1


ZONES = """
services:
  - name: app
    port: 8081
    replicas: 2
    zones: [a, b]
    upstreams: [{service: web, port: 9001}, {service: few, port: 9002}, {service: anywhere, port: 9003}]
  - &web
    name: web
    port: 8081
    replicas: 4
    sidecar: false
    zones: [a, b]
    discovery: DISCOVERY
    zone_aware: true
  - {<<: *web, name: few, zone_aware: {min_replicas: 5}}
  - {<<: *web, name: anywhere, replicas: 8, zone_aware: false}
front_proxies:
  - name: front
    replicas: 2
    zones: [b, a]
    listeners: [{port: FRONT}]
    routes: [{prefix: /, service: web}]
settings: {resting: []}
"""


@pytest.mark.parametrize("discovery", ["static", "eds"])
def test_zone_aware_callers_stay_in_their_zone_as_long_as_it_has_replicas(mesh: Run, discovery: str) -> None:
    inventory = ZONES.replace("DISCOVERY", discovery)
    running_mesh = mesh(inventory)
    one, two = (running_mesh.at(name, 9001) for name in ("app-1", "app-2"))
    assert names(one, 20) == {"web-1": 10, "web-3": 10}
    assert names(two, 20) == {"web-2": 10, "web-4": 10}
    assert names(running_mesh.front(), 20) == {"web-2": 10, "web-4": 10}
    assert len(names(running_mesh.at("app-1", 9002), 20)) == 4
    assert len(names(running_mesh.at("app-1", 9003), 40)) == 8

    running_mesh.change(inventory.replace("resting: []", "resting: [web-1, web-3]"))
    wait_until(lambda: names(one, 20) == {"web-2": 10, "web-4": 10}, "the other zone answers")
    running_mesh.change(inventory.replace("resting: []", "resting: [web-1]"))
    wait_until(lambda: "web-3" in names(one, 20), "the own zone takes what it can")
    running_mesh.change(inventory)
    wait_until(lambda: names(one, 20) == {"web-1": 10, "web-3": 10}, "the own zone takes all")
    assert names(two, 20) == {"web-2": 10, "web-4": 10}

    # Without callers in the other zone, this one has only half of what all callers need.
    running_mesh.change(inventory.replace("resting: []", "resting: [app-2]"))
    wait_until(lambda: len(names(one, 40)) == 4, "the other zone helps out")


def test_zone_aware_callers_without_files_stay_in_their_zone(mesh: Run) -> None:
    running_mesh = mesh(ZONES.replace("DISCOVERY", "eds").replace("resting: []", "config_delivery: static"))
    assert names(running_mesh.at("app-1", 9001), 20) == {"web-1": 10, "web-3": 10}
    assert len(names(running_mesh.at("app-1", 9003), 40)) == 8


# Versions

VERSIONS = """
services:
  - &version {name: one, port: 8081, sidecar: false, lb_policy: ring_hash, hash_on: {header: x-cart}}
  - {<<: *version, name: two}
  - {name: three, port: 8081, sidecar: false}
  - name: shop
    port: 8081
    versions:
      - {service: one, weight: 80}
      - {service: two, weight: 20, headers: [{name: x-version, exact: "2"}], cookie: {name: version, value: "2"}}
  - {name: held, port: 8081, sticky: {header: x-user}, versions: [{service: one, weight: 1}, {service: two, weight: 1}]}
  - name: near
    port: 8081
    sticky: {source_ip: true}
    versions: [{service: one, weight: 1}, {service: two, weight: 1}]
  - name: kept
    port: 8081
    sticky: {cookie: version}
    versions: [{service: one, weight: 1}, {service: two, weight: 1}, {service: three, weight: 0}]
  - {name: canary, port: 8081, versions: [{service: one, weight: 1}, {service: two, cookie: beta}]}
  - {name: queue-1, port: 9000, protocol: tcp, sidecar: false}
  - {name: queue-2, port: 9000, protocol: tcp, sidecar: false}
  - name: queue
    port: 9000
    protocol: tcp
    versions: [{service: queue-1, weight: 50}, {service: queue-2, weight: 50}]
  - {name: app, port: 8081, upstreams: [{service: shop, port: 9001}, {service: queue, port: 9002}]}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: queue}]
    routes:
      - {prefix: /shop, service: shop}
      - {prefix: /held, service: held}
      - {prefix: /near, service: near}
      - {prefix: /kept, service: kept}
      - {prefix: /canary, service: canary}
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("versions"), VERSIONS) as running_mesh:
        yield running_mesh


def test_versions_share_requests_by_weight(versions: Mesh) -> None:
    """Of 500, 100 with a standard deviation of 9."""
    for where, path in ((versions.front(), "/shop"), (versions.at("app-1", 9001), "/")):
        assert names(where, 500, path)["two-1"] == pytest.approx(100, abs=45)
    for where in (versions.front("2"), versions.at("app-1", 9002)):
        assert {send(where, b"x") for _rest in range(30)} == {b"queue-1-1:x", b"queue-2-1:x"}


@pytest.mark.parametrize(
    ("path", "headers", "two"),
    [
        ("/shop", {"x-version": "2"}, True),
        ("/shop", {"cookie": "version=2"}, True),
        ("/shop", {"cookie": "a=b; version=2; c=d"}, True),
        ("/canary", {"cookie": "beta=yes"}, True),
        ("/canary", {}, False),
        ("/canary", {"cookie": "alphabeta=yes"}, False),
        ("/canary", {"x-version": "2"}, False),
    ],
)
def test_a_version_claims_requests_by_header_or_cookie(
    versions: Mesh, path: str, headers: dict[str, str], two: bool
) -> None:
    assert names(versions.front(), 20, path, headers) == {"two-1" if two else "one-1": 20}
    if path == "/shop":
        assert names(versions.at("app-1", 9001), 20, "/", headers) == {"two-1": 20}


def test_another_value_of_the_cookie_claims_nothing(versions: Mesh) -> None:
    assert len(names(versions.front(), 100, "/shop", {"cookie": "version=23"})) == 2


def test_sticky_callers_keep_the_version_that_answered_first(versions: Mesh) -> None:
    front = versions.front()
    chosen = [
        {get(front, "/held", {"x-user": str(user), "x-cart": str(cart)}).name for cart in range(3)}
        for user in range(20)
    ]
    assert all(len(version) == 1 for version in chosen)
    assert set.union(*chosen) == {"one-1", "two-1"}

    assert len(names(front, 30, "/near")) == 1

    firsts = [get(front, "/kept") for _rest in range(20)]
    assert len({first.name for first in firsts}) == 2
    for first in firsts:
        cookie = first.headers["set-cookie"].partition(";")[0]
        assert cookie.startswith("version=")
        assert names(front, 2, "/kept", {"cookie": cookie}) == {first.name: 2}
    assert "three-1" not in names(front, 10, "/kept", {"cookie": "version=three"})


def test_a_mirror_gets_copies_and_its_answers_are_dropped(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: shop, port: 8081, sidecar: false, mirror: next}
  - {name: stock, port: 8081, sidecar: false}
  - {name: next, port: 8081, sidecar: false}
  - {name: app, port: 8081, upstreams: [{service: stock, port: 9001, mirror: {service: next, percent: 100}}]}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /all, service: shop}
      - {prefix: /half, service: stock, mirror: {service: next, percent: 50}}
      - {prefix: /none, service: stock}
""")
    copy = running_mesh.applications["next-1"]
    copy.answer = lambda _rest: 500
    front = running_mesh.front()
    assert names(front, 20, "/all") == {"shop-1": 20}
    assert names(front, 200, "/half") == {"stock-1": 200}
    assert names(front, 20, "/none") == {"stock-1": 20}
    assert names(running_mesh.at("app-1", 9001), 20, "/app") == {"stock-1": 20}
    wait_until(lambda: (copy.paths.count("/all"), copy.paths.count("/app")) == (20, 20), "all copies are there")
    # 100 with a standard deviation of 7.
    assert copy.paths.count("/half") == pytest.approx(100, abs=35)
    assert "/none" not in copy.paths
    assert (copy.hosts["/all"] or "").partition(":")[0].endswith("-shadow")


# What a request meets on its way

FAULTS = """
services:
  - {name: web, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
  - name: app
    port: 8081
    sidecar: {routes: [{prefix: /slow, fault: {delay: 300ms}}, {prefix: /}]}
    upstreams: [{service: web, port: 9001, fault: {abort: 418}}]
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /delay, service: web, fault: {delay: 300ms}}
      - {prefix: /abort, service: web, fault: {abort: 503}}
      - {prefix: /some, service: web, fault: {abort: {status: 503, percent: 30}}}
      - {prefix: /told, service: web, fault: {abort: 503, headers: [{name: x-fault, exact: "on"}]}}
      - {grpc: api.Echo, service: echo, fault: {abort: {grpc_status: 14}}}
      - {prefix: /, service: web}
"""


def test_faults_delay_and_abort_their_share_of_requests(mesh: Run) -> None:
    running_mesh = mesh(FAULTS)
    front, asked = running_mesh.front(), running_mesh.applications["web-1"].paths

    def took(where: str, path: str) -> float:
        began = time.monotonic()
        assert get(where, path).status == 200
        return time.monotonic() - began

    assert took(front, "/delay") >= 0.28
    assert took(front, "/") < 0.25
    assert took(running_mesh.at("app-1", 8786), "/slow") >= 0.28
    assert took(running_mesh.at("app-1", 8786), "/") < 0.25
    assert get(front, "/abort").status == 503
    assert "/abort" not in asked
    # 90 with a standard deviation of 8.
    assert statuses(front, 300, "/some")[503] == pytest.approx(90, abs=40)
    assert get(front, "/told").status == 200
    assert get(front, "/told", {"x-fault": "on"}).status == 503
    assert get(running_mesh.at("app-1", 9001)).status == 418
    with grpc.insecure_channel(front) as channel:
        assert code(channel) == grpc.StatusCode.UNAVAILABLE


HEADERS = """
services:
  - {name: web, port: 8081, sidecar: false}
  - name: app
    port: 8081
    sidecar:
      routes: [{prefix: /, request_headers: &request {set: {x-set: new}, add: {x-add: more}, remove: [x-drop]}}]
    upstreams:
      - service: web
        port: 9001
        request_headers: *request
        response_headers: &response {set: {x-answer: "%PROTOCOL%"}, add: {hostname: more}, remove: [content-type]}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /changed, service: web, request_headers: *request, response_headers: *response}
      - {prefix: /, service: web}
"""


def test_headers_are_set_added_and_removed(mesh: Run) -> None:
    running_mesh = mesh(HEADERS)
    given = {"x-set": "old", "x-add": "one", "x-drop": "gone", "x-keep": "kept"}
    for where, path in (
        (running_mesh.front(), "/changed"),
        (running_mesh.at("app-1", 9001), "/"),
        (running_mesh.at("app-1", 8786), "/"),
    ):
        with contextlib.closing(http.client.HTTPConnection(*where.split(":"), timeout=10)) as connection:
            connection.request("GET", path, headers=given)
            response = connection.getresponse()
            seen = json.loads(response.read())["headers"]
        assert seen["x-set"] == "new"
        assert seen["x-add"] == "one, more"
        assert "x-drop" not in seen
        assert seen["x-keep"] == "kept"
        if path == "/changed" or where.endswith("9001"):
            assert response.headers["x-answer"] == "HTTP/1.1"
            assert response.headers.get_all("hostname") == ["web-1", "more"]
    plain = get(running_mesh.front(), "/", given)
    assert plain.seen["headers"].items() >= given.items()
    assert "x-answer" not in plain.headers


# Limits

LIMITS = """
services:
  - name: web
    port: 8081
    health_check: {interval: 100ms, unhealthy_interval: 100ms}
    sidecar: {rate_limit: {requests: 5, per: 60s}}
  - name: burst
    port: 8081
    sidecar: {rate_limit: {requests: 5, per: 1s, burst: 10}}
  - name: part
    port: 8081
    sidecar: {routes: [{prefix: /dear, rate_limit: {requests: 2, per: 60s}}, {prefix: /}], max_connections: 2}
  - name: echo
    port: 8081
    protocol: grpc
    health_check: {interval: 100ms, unhealthy_interval: 100ms}
    sidecar: {rate_limit: {requests: 3, per: 60s}}
  - {name: queue, port: 9000, protocol: tcp, sidecar: {max_connections: 2}}
  - {name: open, port: 8081, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, rate_limit: 4}, {port: FRONT3, max_connections: 2}]
    routes:
      - {prefix: /web, service: web}
      - {grpc: api.Echo, service: echo}
      - {prefix: /few, service: open, rate_limit: {requests: 3, per: 60s}}
      - {prefix: /, service: open}
"""


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("limits"), LIMITS) as running_mesh:
        yield running_mesh


def test_an_ingress_lets_pass_so_many_requests_and_all_health_checks(limits: Mesh) -> None:
    application = limits.applications["web-1"]
    checks = application.paths.count("/healthz")
    answers = [get(limits.front(), "/web") for _rest in range(12)]
    assert Counter(answer.status for answer in answers) == {200: 5, 429: 7}
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers[:6]] == ["4", "3", "2", "1", "0", "0"]
    wait_until(lambda: application.paths.count("/healthz") >= checks + 12, "health checks pass")
    assert get(limits.front(), "/web").status == 429
    assert limits.stat("front-1", "cluster.web.membership_healthy") == 1


def test_after_a_pause_more_may_come_at_once(limits: Mesh) -> None:
    where = limits.at("burst-1", 8786)
    assert statuses(where, 15)[200] in (10, 11)
    time.sleep(1)
    assert 4 <= statuses(where, 15)[200] <= 11


def test_grpc_callers_beyond_the_limit_get_their_own_status(limits: Mesh) -> None:
    with grpc.insecure_channel(limits.front()) as channel:
        codes = [code(channel) for _rest in range(6)]
    assert codes == [grpc.StatusCode.OK] * 3 + [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    time.sleep(0.5)
    assert limits.stat("front-1", "cluster.echo.membership_healthy") == 1


def test_routes_and_listeners_have_limits_of_their_own(limits: Mesh) -> None:
    assert statuses(limits.front(), 6, "/few") == {200: 3, 429: 3}
    assert statuses(limits.front(), 20) == {200: 20}
    assert statuses(limits.at("part-1", 8786), 4, "/dear") == {200: 2, 429: 2}
    assert statuses(limits.at("part-1", 8786), 20) == {200: 20}
    began = statuses(limits.front("2"), 20)
    assert began[429] > 0
    assert 4 <= began[200] <= 8


@pytest.mark.parametrize("where", ["front", "ingress", "tcp"])
def test_a_connection_beyond_the_limit_is_closed(limits: Mesh, where: str) -> None:
    place = {"front": limits.front("3"), "ingress": limits.at("part-1", 8786), "tcp": limits.at("queue-1", 8786)}[where]
    host, _rest, port = place.partition(":")
    request = b"x" if where == "tcp" else b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

    def answered(connection: socket.socket) -> bool:
        with contextlib.suppress(ConnectionResetError):
            connection.sendall(request)
            return bool(connection.recv(4096))
        return False

    connect = functools.partial(socket.create_connection, (host, int(port)), timeout=5)
    with connect() as first, connect() as second:
        assert answered(first)
        assert answered(second)
        with connect() as third:
            assert not answered(third)
        assert answered(first)

    def free() -> bool:
        with connect() as another:
            return answered(another)

    wait_until(free, "a closed connection makes room")


# Websockets

WEBSOCKETS = """
services:
  - {name: chat, port: 8081, websocket: true, sidecar: {http: &short {stream_idle_timeout: 300ms}}}
  - {name: plain, port: 8081}
  - name: app
    port: 8081
    sidecar: {http: *short}
    upstreams: [{service: chat, port: 9001, timeout: 500ms}]
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    http: *short
    routes:
      - {prefix: /plain, service: plain}
      - {prefix: /, service: chat, timeout: 500ms}
"""


def test_websockets_pass_where_they_are_allowed_and_last(mesh: Run) -> None:
    running_mesh = mesh(WEBSOCKETS)
    with contextlib.ExitStack() as stack:
        connections = []
        for where in (running_mesh.front(), running_mesh.at("app-1", 9001), running_mesh.at("chat-1", 8786)):
            connection = upgraded(where, "/chat")
            assert connection, where
            connections.append(stack.enter_context(connection))
        assert upgraded(running_mesh.front(), "/plain") is None
        assert upgraded(running_mesh.at("plain-1", 8786)) is None
        # Longer than a request may take, or be silent.
        for _rest in range(3):
            time.sleep(0.4)
            for connection in connections:
                connection.sendall(b"ping")
                assert connection.recv(100) == b"ping"
    assert get(running_mesh.front()).name == "chat-1"
