"""Who listens where: the text of /proc/net, and real sockets of this test."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import sockets
from ansible_collections.sidecar.mesh.plugins.module_utils.sockets import BoundSocket, Holder

ADDRESS = "127.91.17.3"

HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LINE = (
    "  {}: {} 00000000:0000 {} 00000000:00000000 00:00000000 00000000  {}        0 {} 1 0000000000000000 100 0 0 10 0\n"
)
TCP = (
    HEADER
    + LINE.format(0, "0307117F:1F90", "0A", 1000, 4711)
    + LINE.format(1, "00000000:0050", "0A", 33, 4712)
    + LINE.format(2, "0100007F:1F90", "01", 0, 4713)
)
TCP6 = (
    HEADER
    + LINE.format(0, "00000000000000000000000000000000:20FB", "0A", 0, 4721)
    + LINE.format(1, "00000000000000000000000001000000:1F90", "0A", 0, 4722)
    + LINE.format(2, "0000000000000000FFFF00000100007F:1F91", "0A", 0, 4723)
)
UDP = HEADER + LINE.format(210, "0100007F:0035", "07", 0, 4731)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind((ADDRESS, 0))
        return int(free.getsockname()[1])


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server((ADDRESS, 0)) as server:
        yield server


@pytest.mark.skipif(sys.byteorder == "big", reason="the samples are of a little-endian machine")
@pytest.mark.parametrize(
    ("text", "listening_only", "expected"),
    [
        (TCP, True, [BoundSocket("127.17.7.3", 8080, 1000, 4711), BoundSocket("0.0.0.0", 80, 33, 4712)]),
        (
            TCP6,
            True,
            [
                BoundSocket("::", 8443, 0, 4721),
                BoundSocket("::1", 8080, 0, 4722),
                BoundSocket("127.0.0.1", 8081, 0, 4723),
            ],
        ),
        (UDP, False, [BoundSocket("127.0.0.1", 53, 0, 4731)]),
        (UDP, True, []),
        (HEADER, True, []),
    ],
)
def test_parse_proc_net(text: str, listening_only: bool, expected: list[BoundSocket]) -> None:
    assert sockets.parse_proc_net(text, listening_only=listening_only) == expected


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("127.0.0.1", "::", True),
        ("0.0.0.0", "::", True),
        ("127.0.0.1", "::1", False),
        ("::1", "0.0.0.0", False),
        ("::1", "::", True),
    ],
)
def test_overlap(here: str, there: str, expected: bool) -> None:
    assert sockets.overlap(here, there) is expected
    assert sockets.overlap(there, here) is expected


@pytest.mark.parametrize("proto", ["tcp", "udp"])
def test_bind_error_of_a_free_port_leaves_it_free(port: int, proto: str) -> None:
    assert [sockets.bind_error(ADDRESS, port, proto) for _round in range(3)] == [0, 0, 0]


@pytest.mark.parametrize("held", [ADDRESS, "0.0.0.0", "::"])
def test_bind_error_of_a_taken_port(port: int, held: str) -> None:
    family = socket.AF_INET6 if ":" in held else socket.AF_INET
    with socket.socket(family) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        server.bind((held, port))
        server.listen()
        assert sockets.bind_error(ADDRESS, port, "tcp") == errno.EADDRINUSE
        assert sockets.bind_error(ADDRESS, port, "udp") == 0


def test_ipv6_only_is_not_in_the_way_of_ipv4(port: int) -> None:
    with socket.socket(socket.AF_INET6) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::", port))
        server.listen()
        assert sockets.bind_error(ADDRESS, port, "tcp") == 0


def test_connections_that_linger_are_not_in_the_way(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    client = socket.create_connection((ADDRESS, port))
    served, _other = listener.accept()
    served.close()
    client.close()
    listener.close()
    assert sockets.bind_error(ADDRESS, port, "tcp") == 0


def test_bind_error_of_an_address_nobody_has() -> None:
    assert sockets.bind_error("192.0.2.1", 0, "tcp") == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        (ADDRESS, True),
        ("0.0.0.0", True),
        ("::", True),
        ("192.0.2.1", False),
        ("2001:db8::1", False),
    ],
)
def test_is_local(address: str, expected: bool) -> None:
    assert sockets.is_local(address) is expected


def test_bound_sockets_of_this_machine(listener: socket.socket) -> None:
    inode = os.fstat(listener.fileno()).st_ino
    expected = BoundSocket(ADDRESS, listener.getsockname()[1], os.getuid(), inode)
    assert expected in sockets.bound_sockets("tcp")
    assert expected not in sockets.bound_sockets("udp")


def test_bound_sockets_without_proc(tmp_path: Path) -> None:
    assert sockets.bound_sockets("tcp", tmp_path) == []


def test_holder_is_a_process_with_its_command_and_environment(listener: socket.socket) -> None:
    bound = BoundSocket(ADDRESS, 1, os.getuid(), os.fstat(listener.fileno()).st_ino)
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", "x" * 200]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env={"MARK": "1"}, pass_fds=[listener.fileno()]) as process:
        listener.close()
        (holder,) = sockets.holders([bound])
        assert process.stdin
        process.stdin.close()
    assert holder.pid == process.pid
    assert holder.command == " ".join(command)[:100] + "..."
    assert "MARK=1" in holder.environment
    assert str(holder) == f"pid {process.pid} ({holder.command})"


def test_holder_that_cannot_be_seen() -> None:
    bound = BoundSocket(ADDRESS, 1, 33, inode=1)
    assert sockets.holders([bound]) == [Holder(bound)]
    assert str(Holder(bound)) == "a process of another user (uid 33)"
