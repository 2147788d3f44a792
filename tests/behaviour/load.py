"""Load on a mesh while something changes: clients that keep their connection, and clients that open a new one for every
request. HTTP, with TLS or without, or gRPC.

Nothing is repeated: whatever does not end with status 200 (gRPC: OK) is a failure, with its time and its reason. A
client that is told to leave (``connection: close``) leaves after the answer, as every HTTP client does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

KEPT, NEW = "kept connection", "new connection"
ANSWER_SECONDS = 30.0
_HEAD_END = b"\r\n\r\n"
_Address = tuple[str, int]


@dataclass(frozen=True)
class Answer:
    """A whole answer with status 200. ``time``: when it was there, in seconds since the load began."""

    time: float
    client: str
    hostname: str


@dataclass(frozen=True)
class Failure:
    time: float
    client: str
    reason: str

    def __str__(self) -> str:
        return f"{self.time:.2f} s, {self.client}: {self.reason}"


@dataclass
class Report:
    """What became of every request."""

    answers: list[Answer] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.answers) + len(self.failures)

    @property
    def clients(self) -> Counter[str]:
        """Answers by the kind of client."""
        return Counter(answer.client for answer in self.answers)

    def hostnames(self, begin: float = 0, end: float = float("inf")) -> Counter[str]:
        """Answers by the header ``hostname``, of the time between."""
        return Counter(answer.hostname for answer in self.answers if begin <= answer.time < end)

    def first(self, hostname: str) -> float | None:
        """When a replica answered first."""
        return next((answer.time for answer in self.answers if answer.hostname == hostname), None)

    def must_be_whole(self, count: int = 1, share: float = 0) -> None:
        """Fails unless so many requests were sent and every one was answered, but for a share."""
        shown = "\n".join(f"  {failure}" for failure in self.failures[:20])
        assert len(self.failures) <= share * self.count, (
            f"{len(self.failures)} of {self.count} requests failed:\n{shown}"
        )
        assert self.count >= count, f"only {self.count} requests were sent, {count} were wanted"


class Load:
    """Requests from now until the end of the ``with`` block; its report can be read all the time.

    ``kept`` and ``new``: how many clients of each kind; ``pause``: seconds each of them waits between two requests, so
    that what is tested has time to run, and four times as long after ``enough`` requests. ``hosts``: where the
    port is, one client here, the next one there.
    """

    def __init__(
        self,
        port: int,
        path: str = "/",
        *,
        kept: int = 4,
        new: int = 2,
        pause: float = 0.02,
        enough: float = float("inf"),
        hosts: Sequence[str] = ("127.0.0.1",),
        tls: bool = False,
    ) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\n"
        self._pause, self._enough = pause, enough
        self._tls = _any_certificate() if tls else None
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self.report = Report()
        self.began = time.time()
        clients: list[Callable[[_Address], None]] = [self._keep] * kept + [self._renew] * new
        self._threads = [
            threading.Thread(target=client, args=[(hosts[index % len(hosts)], port)], daemon=True)
            for index, client in enumerate(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_rest: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(2 * ANSWER_SECONDS)

    @property
    def now(self) -> float:
        """Seconds since the load began: the clock of the report."""
        return time.time() - self.began

    def wait_for(self, count: int, seconds: float = 180) -> None:
        """Until that many more requests have come back."""
        wanted = self.report.count + count
        self.wait_until(lambda report: report.count >= wanted, f"{count} more requests", seconds)

    def wait_until(self, condition: Callable[[Report], object], what: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition(self.report):
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
            time.sleep(0.05)

    def _keep(self, address: _Address) -> None:
        connection: _Connection | None = None
        while not self._ends.is_set():
            connection = self._ask(KEPT, address, connection)
        if connection:
            connection.close()

    def _renew(self, address: _Address) -> None:
        while not self._ends.is_set():
            if connection := self._ask(NEW, address, None):
                connection.close()

    def _ask(self, client: str, address: _Address, connection: _Connection | None) -> _Connection | None:
        """One request; the connection, if another may follow on it."""
        try:
            connection = connection or _Connection(address, self._tls)
            status, headers, body = connection.ask(self._request, last=client == NEW)
        except OSError as error:
            self._fail(client, f"{type(error).__name__}: {error}")
            if connection:
                connection.close()
            time.sleep(0.02)  # what refuses connections does so thousands of times a second
            return None
        if status == 200:
            with self._lock:
                self.report.answers.append(Answer(self.now, client, headers.get("hostname", "")))
        else:
            self._fail(client, f"status {status}: {body.strip()[:200]}")
        time.sleep(self._pause if self.report.count < self._enough else 4 * self._pause)
        if headers.get("connection", "").lower() != "close":
            return connection
        connection.close()
        return None

    def _fail(self, client: str, reason: str) -> None:
        with self._lock:
            self.report.failures.append(Failure(self.now, client, reason))


class GrpcLoad(Load):
    """Calls of api.Echo/Echo, by a process of its own, since ``python`` is the one that has gRPC."""

    def __init__(self, port: int, python: Path, *, kept: int = 4, new: int = 2, pause: float = 0.02) -> None:
        super().__init__(port, kept=0, new=0)
        self._command = [str(word) for word in (python, __file__, port, kept, new, pause)]
        self._threads = [threading.Thread(target=self._read, daemon=True)]

    def _read(self) -> None:
        with subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for line in process.stdout:
                client, hostname, reason = json.loads(line)
                if reason:
                    self._fail(client, reason)
                else:
                    self.report.answers.append(Answer(self.now, client, hostname))
                if self._ends.is_set():
                    process.terminate()
            if not self._ends.is_set():
                self._fail("all of them", "their process ended")


def _any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Connection:
    """HTTP/1.1 with content-length, which is all that is needed here, and many times as fast as http.client."""

    def __init__(self, address: _Address, tls: ssl.SSLContext | None) -> None:
        self._socket = socket.create_connection(address, timeout=ANSWER_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self._socket = tls.wrap_socket(self._socket)

    def ask(self, request: str, *, last: bool) -> tuple[int, dict[str, str], str]:
        """Status, headers (names in lower case) and body of the answer. Raises OSError."""
        self._socket.sendall(f"{request}{'connection: close' if last else 'x: x'}\r\n\r\n".encode())
        received = b""
        while _HEAD_END not in received:
            received += self._receive()
        head, _rest, body = received.partition(_HEAD_END)
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _rest, value in (line.partition(":") for line in lines)}
        if "content-length" not in headers:
            raise OSError(f"an answer without content-length: {head[:200]!r}")
        while len(body) < int(headers["content-length"]):
            body += self._receive()
        return int(first.split()[1]), headers, body.decode(errors="replace")

    def _receive(self) -> bytes:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionResetError("closed before the whole answer was there")
        return received

    def close(self) -> None:
        self._socket.close()


async def _call(target: str, *, keep: bool, pause: float) -> None:
    """A gRPC client: a line of JSON for each call, with the kind of client, the hostname that answered, the failure."""
    import grpc  # only the process that calls has it

    channel = None
    while True:
        if channel is None:
            # Channels to one target would otherwise share a connection.
            channel = grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        hostname, reason = "", ""
        try:
            call = channel.unary_unary("/api.Echo/Echo")(b"\x0a\x02hi", timeout=ANSWER_SECONDS)
            hostname = str(dict(await call.initial_metadata()).get("hostname", ""))
            await call
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        print(json.dumps([KEPT if keep else NEW, hostname, reason]), flush=True)
        if not keep:
            await channel.close()
            channel = None
        await asyncio.sleep(pause)


async def _call_all(port: int, kept: int, new: int, pause: float) -> None:
    target = f"127.0.0.1:{port}"
    await asyncio.gather(*(_call(target, keep=number < kept, pause=pause) for number in range(kept + new)))


if __name__ == "__main__":
    asyncio.run(_call_all(*map(int, sys.argv[1:4]), float(sys.argv[4])))
