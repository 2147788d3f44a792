"""What proxies bear: limits of requests, connections and memory, slow clients, and paths and headers that mislead."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin, ports
from behaviour.envoys import Mesh, ask, get, running, send, statuses
from behaviour.machine import loopback, wait_until

# As the defaults have it

DEFAULTS = """
services:
  - {name: web, port: 8081}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: web}]}
  - name: strict
    listeners: [{port: FRONT2}]
    routes: [{prefix: /, service: web}]
    access_log: {format: json, fields: [path, peer]}
    http:
      max_headers: 20
      max_request_headers_kb: 4
      header_underscores: drop
      escaped_slashes: reject
      request_headers_timeout: 300ms
      request_timeout: 3s
      idle_timeout: 500ms
      max_concurrent_streams: 7
      trusted_hops: 1
  - name: lenient
    listeners: [{port: FRONT3}]
    routes: [{prefix: /, service: web}]
    http:
      header_underscores: allow
      escaped_slashes: unescape
      request_timeout: 0
      stream_idle_timeout: 400ms
      max_connection_duration: 700ms
"""


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("protection"), DEFAULTS) as running_mesh:
        yield running_mesh


FRONTS = {"default": "", "strict": "2", "lenient": "3"}


def where(mesh: Mesh, name: str) -> str:
    return mesh.at("web-1", 8786) if name == "sidecar" else mesh.front(FRONTS[name])


@pytest.mark.parametrize(("name", "least", "most"), [("default", 80, 110), ("strict", 10, 30), ("sidecar", 80, 110)])
def test_the_number_of_headers_is_limited(mesh: Mesh, name: str, least: int, most: int) -> None:
    for count, status in ((least, 200), (most, 431)):
        assert get(where(mesh, name), "/", {f"x-{number}": "" for number in range(count)}).status == status


@pytest.mark.parametrize(("name", "passes", "refused"), [("default", 50, 62), ("strict", 3, 5), ("sidecar", 50, 62)])
def test_the_size_of_headers_is_limited(mesh: Mesh, name: str, passes: int, refused: int) -> None:
    for kilobytes, status in ((passes, 200), (refused, 431)):
        # One header more than 8 KB is none of Python's business, so there are many.
        headers = {f"x-{number}": "a" * 1024 for number in range(kilobytes)}
        if name == "strict":
            headers = {"x-one": "a" * 1024 * kilobytes}
        assert get(where(mesh, name), "/", headers).status == status


@pytest.mark.parametrize(
    ("name", "status", "seen"),
    [("default", 400, None), ("strict", 200, None), ("lenient", 200, "root"), ("sidecar", 200, "root")],
)
def test_headers_with_underscores(mesh: Mesh, name: str, status: int, seen: str | None) -> None:
    answer = get(where(mesh, name), "/", {"x_user": "root"})
    assert answer.status == status
    if status == 200:
        assert answer.seen["headers"].get("x_user") == seen


@pytest.mark.parametrize(
    ("name", "path", "status", "seen"),
    [
        ("default", "/a%2Fb", 307, "/a/b"),
        ("default", "/a%5cb", 307, "/a/b"),
        ("strict", "/a%2fb", 400, None),
        ("lenient", "/a%2Fb", 200, "/a/b"),
        ("sidecar", "/a%2Fb", 200, "/a%2Fb"),
        *((name, "//a/../b//c", 200, "/b/c") for name in ("default", "sidecar")),
        *((name, "/%61", 200, "/a") for name in ("default", "sidecar")),
    ],
)
def test_paths_are_made_plain(mesh: Mesh, name: str, path: str, status: int, seen: str | None) -> None:
    answer = get(where(mesh, name), path)
    assert answer.status == status
    if status == 307:
        assert answer.headers["location"] == seen
    elif status == 200:
        assert answer.seen["path"] == seen


@pytest.mark.parametrize("name", ["default", "sidecar"])
def test_a_bad_request_does_not_cost_the_connection(mesh: Mesh, name: str) -> None:
    """Others may share it: a proxy's connection carries the requests of many clients."""
    with connected_http2(where(mesh, name)) as (connection, stream):
        connection.sendall(headers_of_http2(1, b"X-Upper-Case", b"1") + headers_of_http2(3, b"x-lower-case", b"1"))
        answered: dict[int, bytes] = {}
        while 3 not in answered:
            kind, number, body = frame_of_http2(stream)
            assert kind != GOAWAY
            if kind in (HEADERS, RST_STREAM):
                answered.setdefault(number, bytes([kind]) + body)
        assert answered[3].startswith(bytes([HEADERS, 0x88]))  # :status 200
        assert not answered[1].startswith(bytes([HEADERS, 0x88]))


HEADERS, RST_STREAM, SETTINGS, GOAWAY = 1, 3, 4, 7
"""Kinds of frames of HTTP/2 (RFC 9113, 6)."""


@contextlib.contextmanager
def connected_http2(where: str) -> Iterator[tuple[socket.socket, Any]]:
    host, _rest, port = where.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        yield connection, stream


def frame_of_http2(stream: Any) -> tuple[int, int, bytes]:
    """The next frame's kind, stream and body."""
    head = stream.read(9)
    return head[3], int.from_bytes(head[5:], "big"), stream.read(int.from_bytes(head[:3], "big"))


def headers_of_http2(number: int, name: bytes, value: bytes) -> bytes:
    """A whole request GET http://a/ with one more header, as it is (RFC 7541)."""
    block = b"\x82\x86\x84\x41\x01a\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
    return len(block).to_bytes(3, "big") + bytes([HEADERS, 5]) + number.to_bytes(4, "big") + block


# Slow clients


def drip(where: str, data: bytes, seconds: float = 10) -> tuple[bytes, float]:
    """What comes back after a request that is never ended, until the connection is closed; and the time it took."""
    host, _rest, port = where.rpartition(":")
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    return received, time.monotonic() - started


def test_headers_that_do_not_end_are_not_waited_for(mesh: Mesh) -> None:
    received, seconds = drip(mesh.front("2"), b"GET / HTTP/1.1\r\nhost: a\r\nx-one: ")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert 0.25 <= seconds < 2.5
    with pytest.raises(TimeoutError):
        drip(mesh.front(), b"GET / HTTP/1.1\r\nhost: a\r\nx-one: ", 1)


def test_a_body_that_does_not_end_is_not_waited_for(mesh: Mesh) -> None:
    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc"
    received, seconds = drip(mesh.front("2"), request)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert 2.9 <= seconds < 6


def test_a_silent_request_and_an_idle_connection_end(mesh: Mesh) -> None:
    received, seconds = drip(mesh.front("3"), b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc")
    assert received.startswith(b"HTTP/1.1 408 ")
    assert 0.35 <= seconds < 3
    received, seconds = drip(mesh.front("2"), b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 200 ")
    # Envoy drains it for 5 s, in case a request is on its way.
    assert 0.45 <= seconds < 10


def test_a_connection_ends_at_its_age(mesh: Mesh) -> None:
    host, _rest, port = mesh.front("3").rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        assert "connection" not in ask(connection).headers
        time.sleep(0.8)
        assert connection.sock
        with contextlib.suppress(http.client.HTTPException, OSError):
            assert ask(connection).headers["connection"] == "close"
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        assert ask(connection).status == 200


STREAMS = """
services:
  - {name: web, port: 8081}
  - {name: live, port: 8081, websocket: true}
  - {name: echo, port: 8081, protocol: grpc}
front_proxies:
  - {name: plain, listeners: [{port: FRONT}], routes: [{prefix: /, service: web}]}
  - {name: sockets, listeners: [{port: FRONT2}], routes: [{prefix: /live, service: live}, {prefix: /, service: web}]}
  - {name: calls, listeners: [{port: FRONT3}], routes: [{grpc: api.Echo, service: echo}, {prefix: /, service: web}]}
"""


def test_streams_may_last_where_there_are_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default, made short."""
    monkeypatch.setattr(ports, "REQUEST_TIMEOUT", "0.4s")
    request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabc"
    with running(tmp_path, STREAMS) as mesh:
        assert drip(mesh.front(), request)[0].startswith(b"HTTP/1.1 408 ")
        for address in (mesh.front("2"), mesh.front("3"), mesh.at("web-1", 8786)):
            with pytest.raises(TimeoutError):
                drip(address, request, 1.2)


# Who asks


def test_addresses_told_by_others_are_believed_from_known_hops_only(mesh: Mesh) -> None:
    forged = {"x-forwarded-for": "203.0.113.9, 203.0.113.7"}
    seen = get(mesh.front(), "/", forged).seen["headers"]
    assert seen["x-envoy-external-address"] == "127.0.0.1"
    seen = get(mesh.front("2"), "/hops", forged).seen["headers"]
    assert seen["x-envoy-external-address"] == "203.0.113.7"
    assert seen["x-forwarded-for"].startswith("203.0.113.9, 203.0.113.7,")

    def peers() -> list[str]:
        lines = [json.loads(line) for line in mesh.log("strict-1").splitlines() if line.startswith("{")]
        return [line["peer"] for line in lines if line["path"] == "/hops"]

    assert wait_until(peers, "the log tells") == ["203.0.113.7:0"]


def test_envoys_own_headers_are_not_taken_from_strangers(mesh: Mesh) -> None:
    headers = {"x-envoy-internal": "true", "x-envoy-upstream-rq-timeout-ms": "1", "x-envoy-retry-on": "5xx"}
    seen = get(mesh.front(), "/", headers).seen["headers"]
    assert not {*headers} & {*seen}


@pytest.mark.parametrize(("name", "streams"), [("default", 100), ("strict", 7), ("sidecar", 100)])
def test_requests_at_once_on_one_connection_are_limited(mesh: Mesh, name: str, streams: int) -> None:
    with connected_http2(where(mesh, name)) as (_connection, stream):
        kind, _number, body = frame_of_http2(stream)
    assert kind == SETTINGS
    told = dict(struct.iter_unpack(">HI", body))
    # The first is requests at once, the second how much of each is taken before it is asked for (RFC 9113, 6.5.2).
    assert (told[3], told[4]) == (streams, 65536)


def test_no_server_fills_a_proxy_with_what_nobody_takes(tmp_path: Path) -> None:
    with contextlib.closing(socket.create_server((loopback(), 8081))) as server:
        inventory = CALLS.replace("ADDRESS", server.getsockname()[0])
        with running(tmp_path, inventory) as mesh, contextlib.ExitStack() as stack:
            opened(mesh.front(), stack).sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            connection, _address = server.accept()
            with connection, connection.makefile("rb") as stream:
                assert stream.read(24).startswith(b"PRI * HTTP/2.0")
                kind, _number, body = frame_of_http2(stream)
    assert kind == SETTINGS
    assert dict(struct.iter_unpack(">HI", body))[4] == 65536


CALLS = """
services:
  - {name: calls, port: 8081, protocol: http2, discovery: static, endpoints: [{address: ADDRESS}]}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: calls}]}
"""


# Too much of everything

OVERLOAD = """
services:
  - {name: web, port: 8081, sidecar: {overload: {max_heap: 1Mi}}}
  - {name: direct, port: 8081, sidecar: false}
  - {name: queue, port: 9000, protocol: tcp, sidecar: false}
front_proxies:
  - name: full
    listeners: [{port: FRONT}]
    routes: [{prefix: /, service: direct}]
    overload: {max_heap: 1Mi}
  - name: busy
    listeners: [{port: FRONT2, max_connections: 1}, {port: FRONT3, protocol: tcp, service: queue}]
    routes: [{prefix: /, service: direct}]
    overload: {max_connections: 3}
"""


@pytest.fixture(scope="module")
def overload(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("overload"), OVERLOAD) as running_mesh:
        yield running_mesh


def test_requests_are_refused_before_memory_ends(overload: Mesh) -> None:
    for address, name in ((overload.front(), "full-1"), (overload.at("web-1", 8786), "web-1")):
        assert wait_until(lambda address=address: get(address).status == 503, "requests are refused")
        assert statuses(address, 10, "/late") == {503: 10}
        assert get(address, "/healthz", {"x-envoy-livenessprobe": "healthz"}).status == 503
        page = get(overload.at(name, 9902), "/stats/prometheus")
        assert page.status == 200
        active = "envoy_overload_envoy_overload_actions_stop_accepting_requests_active{} 1"
        assert active in page.text
        assert admin.request(overload.admin(name), "/ready") == "LIVE\n"


def opened(where: str, stack: contextlib.ExitStack) -> socket.socket:
    host, _rest, port = where.rpartition(":")
    return stack.enter_context(socket.create_connection((host, int(port)), timeout=5))


def closed(connection: socket.socket) -> bool:
    """Whether the other side ends it soon."""
    connection.settimeout(0.5)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_connections_are_limited_for_a_listener_and_for_all(overload: Mesh) -> None:
    first, second = overload.front("2"), overload.front("3")
    with contextlib.ExitStack() as stack:
        assert not closed(opened(first, stack))
        assert closed(opened(first, stack))
        for _number in range(2):
            assert not closed(opened(second, stack))
        assert closed(opened(second, stack))
        page = get(overload.at("busy-1", 9902), "/stats/prometheus")
        assert page.status == 200
        limited = f'limited_connections{{envoy_connection_limit_prefix="front_{overload.ports["FRONT2"]}"}} 1'
        assert f"envoy_connection_limit_{limited}\n" in page.text
        address = f"127.0.0.1_{overload.ports['FRONT3']}"
        overflow = f'envoy_listener_downstream_global_cx_overflow{{envoy_listener_address="{address}"}} 1'
        assert f"{overflow}\n" in page.text
    wait_until(lambda: send(second, b"x") == b"queue-1:x", "who comes later is served")
    wait_until(lambda: get(first).status == 200, "who comes later is served")
