# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What listens on this machine, and whose it is: /proc/net and /proc/<pid>, as far as this user may read them."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
COMMAND_CHARACTERS = 100

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_TCP_LISTEN = "0A"
_INODE = re.compile(r"socket:\[(\d+)\]")


@dataclass(frozen=True)
class BoundSocket:
    """A line of /proc/net: a listening TCP socket, or a UDP socket."""

    address: str
    port: int
    uid: int
    inode: int


@dataclass(frozen=True)
class Holder:
    """Who holds a socket. Without a pid, a process this user may not look into."""

    socket: BoundSocket
    pid: int | None = None
    command: str = ""
    environment: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.pid is None:
            return f"a process of another user (uid {self.socket.uid})"
        return f"pid {self.pid} ({self.command})"


def bind_error(address: str, port: int, proto: str) -> int:
    """The errno of an attempt to bind, 0 when it succeeds. What was bound is free again at once.

    Listening servers set SO_REUSEADDR, which lets them pass over connections in TIME_WAIT but not over another
    listener; without SO_REUSEPORT, one that would silently share its port is in the way, too.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, _KINDS[proto]) as attempt:
        if proto == "tcp":
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((address, port))
        except OSError as error:
            return error.errno or errno.EINVAL
    return 0


def is_local(address: str) -> bool:
    """Whether this machine has the address and can reach itself by it. Nothing is sent.

    While the interface lo is down, loopback addresses can be bound, but not reached.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as attempt:
        try:
            attempt.bind((address, 0))
            attempt.connect(attempt.getsockname()[:2])
        except OSError:
            return False
    return True


def overlap(one: str, other: str) -> bool:
    """Whether sockets with these addresses and the same port get in each other's way; ``::`` takes IPv4 as well."""
    if one == other or "::" in (one, other):
        return True
    wildcard = "0.0.0.0"  # noqa: S104 - it is compared with, not bound to
    return wildcard in (one, other) and (":" in one) == (":" in other)


def bound_sockets(proto: str, proc: Path = PROC) -> list[BoundSocket]:
    """Every listening (tcp) or bound (udp) socket of this network namespace; none where there is no /proc/net."""
    found = []
    for name in (proto, f"{proto}6"):
        with contextlib.suppress(OSError):
            text = (proc / "net" / name).read_text(encoding="utf-8")
            found += parse_proc_net(text, listening_only=proto == "tcp")
    return found


def parse_proc_net(text: str, *, listening_only: bool) -> list[BoundSocket]:
    """The sockets in the text of /proc/net/{tcp,udp}{,6}."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        local, state, uid, inode = fields[1], fields[3], fields[7], fields[9]
        if listening_only and state != _TCP_LISTEN:
            continue
        address, port = local.split(":")
        found.append(BoundSocket(_address(address), int(port, 16), int(uid), int(inode)))
    return found


def holders(wanted: Iterable[BoundSocket], proc: Path = PROC) -> list[Holder]:
    """Who holds each socket, in the order given."""
    wanted = list(wanted)
    pids = _pids_by_inode({bound.inode for bound in wanted}, proc)
    return [_holder(bound, pids.get(bound.inode), proc) for bound in wanted]


def _holder(bound: BoundSocket, pid: int | None, proc: Path) -> Holder:
    if pid is None:
        return Holder(bound)
    command = " ".join(_read(proc / str(pid) / "cmdline").replace("\0", " ").split())
    if len(command) > COMMAND_CHARACTERS:
        command = f"{command[:COMMAND_CHARACTERS]}..."
    environment = tuple(_read(proc / str(pid) / "environ").split("\0"))
    return Holder(bound, pid, command or "ended", environment)


def _pids_by_inode(inodes: set[int], proc: Path) -> dict[int, int]:
    """The first process that has each socket open; it ends as soon as all are found."""
    found: dict[int, int] = {}
    for pid in _pids(proc):
        if len(found) == len(inodes):
            break
        for inode in _socket_inodes(proc / str(pid) / "fd"):
            if inode in inodes:
                found.setdefault(inode, pid)
    return found


def environment(pid: int, proc: Path = PROC) -> dict[str, str]:
    """What a process was started with; nothing where this user may not look."""
    pairs = (item.partition("=") for item in _read(proc / str(pid) / "environ").split("\0"))
    return {name: value for name, _rest, value in pairs}


def _pids(proc: Path) -> Iterator[int]:
    """Newest first: what the user started lately is more likely in the way than the system's own."""
    with contextlib.suppress(OSError):
        yield from sorted((int(name) for name in os.listdir(proc) if name.isdigit()), reverse=True)  # noqa: PTH208


def _socket_inodes(folder: Path) -> Iterator[int]:
    # A process may end, or be someone else's, at any time: what cannot be read is not there.
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - twice as fast for thousands of files
            with contextlib.suppress(OSError):
                if match := _INODE.fullmatch(os.readlink(f"{folder}/{name}")):  # noqa: PTH115
                    yield int(match[1])


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes().decode(errors="replace")
    return ""


def _address(text: str) -> str:
    """An address of /proc/net: words of 32 bits in hexadecimal, each in the machine's byte order."""
    words = [int(text[start : start + 8], 16).to_bytes(4, sys.byteorder) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
