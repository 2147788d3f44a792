# SPDX-License-Identifier: GPL-3.0-or-later
"""Start server.py as a real process on a loopback address."""

import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

APP = Path(__file__).resolve().parent.parent
ADDRESS = "127.0.0.1"
# What tells the server how to behave; PYTHONUNBUFFERED would hide a missing flush.
VARIABLES = ("PORT", "BIND_ADDRESS", "POD_NAME", "HOSTNAME", "SHUTDOWN_GRACE", "GRPC_VERBOSITY", "PYTHONUNBUFFERED")
sys.path.insert(0, str(APP))  # echo_pb2 is a top-level module, as in the image


class Server:
    """One process of server.py and what it printed."""

    def __init__(self, environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        self.target = f"{environ.get('BIND_ADDRESS', ADDRESS)}:{environ.get('PORT')}"
        self.process = subprocess.Popen(
            [sys.executable, "-B", str(APP / "server.py")],
            env={**inherited, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def first_line(self) -> str:
        """The first line on stdout, which the server must have flushed."""
        readable, _writable, _errors = select.select([self.process.stdout], [], [], 20)
        assert readable, "no line on stdout after 20 s"
        return self.process.stdout.readline()

    def result(self) -> tuple[int, str, str]:
        """Exit code, rest of stdout, stderr; the process must end by itself."""
        stdout, stderr = self.process.communicate(timeout=20)
        return self.process.returncode, stdout, stderr


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


@pytest.fixture
def launch() -> Iterator[Callable[..., Server]]:
    """Start a server with exactly these variables; it need not come up."""
    servers: list[Server] = []

    def _launch(**environ: str) -> Server:
        servers.append(Server(environ))
        return servers[-1]

    yield _launch
    for server in servers:
        server.process.kill()
        server.process.communicate()


@pytest.fixture
def start(launch: Callable[..., Server]) -> Callable[..., Server]:
    """Start a server on a free loopback port and wait until it listens."""

    def _start(**environ: str) -> Server:
        server = launch(**{"BIND_ADDRESS": ADDRESS, "PORT": str(free_port()), "POD_NAME": "echo-0", **environ})
        assert "listens on" in server.first_line()
        return server

    return _start


@pytest.fixture
def connect() -> Iterator[Callable[[Server], grpc.Channel]]:
    """Open a channel of its own to a server."""
    channels: list[grpc.Channel] = []

    def _connect(server: Server) -> grpc.Channel:
        # A pool of its own: channels to one address otherwise share a connection.
        channels.append(grpc.insecure_channel(server.target, options=(("grpc.use_local_subchannel_pool", 1),)))
        return channels[-1]

    yield _connect
    for channel in channels:
        channel.close()
