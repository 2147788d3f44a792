"""Probes and drains, against small servers that stand in for what is probed."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import probes
from ansible_collections.sidecar.mesh.plugins.module_utils.probes import Load

STATS = """\
http.admin.downstream_cx_active: 1
http.admin.downstream_rq_active: 1
http.ingress.downstream_cx_active: 3
http.ingress.downstream_rq_active: 2
http.ingress.downstream_rq_total: 40
http.egress.downstream_rq_total: 2
http.admin.downstream_rq_total: 99
http.ingress.worker_0.downstream_rq_active: 7
http.admin_api.downstream_cx_active: 1
http.admin_api.downstream_rq_active: 1
listener.127.7.1.1_8080.downstream_cx_active: 4
listener.127.7.1.1_8080.worker_0.downstream_cx_active: 4
listener.127.7.1.1_8081.downstream_cx_active: 5
listener.127.7.1.1_8081.downstream_pre_cx_active: 9
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
"""


class Server(http.server.ThreadingHTTPServer):
    """Answers by a function of the request line; keeps the requests."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str], tuple[int, str]]) -> None:
        self.answer = answer
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.netloc = f"127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        status, body = self.server.answer(f"{self.command} {self.path}")
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET  # noqa: N815 - http.server wants this name

    def log_message(self, *_rest: object) -> None:
        pass


@contextlib.contextmanager
def serving(answer: Callable[[str], tuple[int, str]]) -> Iterator[Server]:
    with Server(answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address nobody listens on, and nobody can take."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_load_is_that_of_clients() -> None:
    requests, tcp = 2 + 1, (4 + 5) - (3 + 1)
    assert probes.load(STATS) == Load(active=requests + tcp, requests=42)


@pytest.mark.parametrize("stats", ["", "http.admin.downstream_rq_active: 1\n", "http.in.downstream_rq_total: 0\n"])
def test_load_that_is_not_among_the_stats_is_unknown(stats: str) -> None:
    assert probes.load(stats) == Load(active=None, requests=0)


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, ""), (204, ""), (503, "GET {url}: 503 PRE_INITIALIZING"), (302, "GET {url}: 302 PRE_INITIALIZING")],
)
def test_ready_by_http(status: int, expected: str) -> None:
    with serving(lambda _rest: (status, "PRE_INITIALIZING\n" if status != 204 else "")) as server:
        url = f"http://{server.netloc}/ready?x=1"
        assert probes.not_ready({"http": url}) == expected.format(url=url)
        assert server.requests == ["GET /ready?x=1"]


def test_ready_by_tcp() -> None:
    with serving(lambda _rest: (200, "")) as server:
        assert probes.not_ready({"tcp": server.netloc}) == ""


def test_nobody_there_is_not_ready(nobody: str) -> None:
    assert probes.not_ready({"tcp": nobody}) == f"TCP {nobody}: [Errno 111] Connection refused"
    assert probes.not_ready({"http": f"http://{nobody}/"}) == f"GET http://{nobody}/: [Errno 111] Connection refused"


def test_silent_server_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert probes.not_ready({"http": url}) == f"GET {url}: timed out"


def test_drain_ends_when_there_was_nothing_to_do_for_a_while() -> None:
    active = iter([2, 1, 0, 1, *[0] * 1000])
    with serving(
        lambda request: (200, f"http.in.downstream_rq_active: {next(active) if 'stats' in request else 0}\n")
    ) as server:
        began = time.monotonic()
        assert probes.drain(server.netloc, 10) is True
        assert probes.DRAIN_QUIET_SECONDS <= time.monotonic() - began < 3
        assert server.requests[0] == "POST /healthcheck/fail"
        assert len(server.requests) > 5


def test_drain_waits_for_clients_that_come_again() -> None:
    """Between two of their requests nothing is active, and yet they have not left."""
    totals = iter([*range(20), *[19] * 1000])
    stats = "http.in.downstream_rq_active: 0\nhttp.in.downstream_rq_total: {}\n"
    with serving(lambda request: (200, stats.format(next(totals)) if "stats" in request else "OK")) as server:
        began = time.monotonic()
        assert probes.drain(server.netloc, 10) is True
        assert 19 * probes.DRAIN_POLL_SECONDS + probes.DRAIN_QUIET_SECONDS <= time.monotonic() - began < 5


def test_drain_ends_when_the_envoy_does() -> None:
    with serving(lambda _rest: (200, "http.in.downstream_rq_active: 1\n")) as server:
        threading.Timer(0.3, server.server_close).start()
        threading.Timer(0.3, server.shutdown).start()
        began = time.monotonic()
        assert probes.drain(server.netloc, 10) is True
        assert time.monotonic() - began < 3


@pytest.mark.parametrize("stats", ["http.in.downstream_rq_active: 1\n", ""])
def test_drain_ends_after_its_seconds(stats: str) -> None:
    with serving(lambda _rest: (200, stats)) as server:
        began = time.monotonic()
        assert probes.drain(server.netloc, 0.7) is False
        assert 0.7 <= time.monotonic() - began < 2


def test_nobody_there_is_drained(nobody: str) -> None:
    began = time.monotonic()
    assert probes.drain(nobody, 10) is True
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [((503, "DRAINING\n"), True), ((503, "PRE_INITIALIZING\n"), False), ((200, "LIVE\n"), False)],
)
def test_is_draining(answer: tuple[int, str], expected: bool) -> None:
    with serving(lambda _rest: answer) as server:
        assert probes.is_draining(server.netloc) is expected


def test_undrain() -> None:
    with serving(lambda _rest: (200, "OK")) as server:
        probes.undrain(server.netloc)
        assert server.requests == ["POST /healthcheck/ok"]


def test_undrain_of_nobody_is_no_error(nobody: str) -> None:
    probes.undrain(nobody)
    assert probes.is_draining(nobody) is False


def test_in_parallel_keeps_the_order() -> None:
    began = time.monotonic()
    assert probes.in_parallel(lambda seconds: time.sleep(seconds) or seconds, [0.9, 0.3, 0.6]) == [0.9, 0.3, 0.6]
    assert time.monotonic() - began < 1.7
