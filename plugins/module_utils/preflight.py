# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a machine before a mesh is started on it. Every check yields lines of text, one a problem:
``variable: value: what is wrong; remedy``. Nothing is changed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.sidecar.mesh.plugins.module_utils import sockets, watches

MESH_VARIABLE = "SIDECAR_MESH"
"""Environment variable of every process of a mesh; its value is the mesh's state folder."""

FREE_MEGABYTES = 50
_MEGABYTE = 1024 * 1024
_SOCKET_PATH_BYTES = 107
"""What a unix socket's address holds (unix(7)), without the closing zero."""
_DRAFT_SUFFIX_BYTES = len(".4194304")
"""Supervisord binds to a draft first, with its pid in the name."""
_UNPRIVILEGED = "net.ipv4.ip_unprivileged_port_start"
SPARE_WATCHES = 8
"""Inotify instances for what is there only while a configuration is validated or changes."""


@dataclass(frozen=True)
class Listener:
    """A port the mesh will listen on. ``proto`` is tcp or udp."""

    address: str
    port: int
    owner: str
    variable: str
    proto: str = "tcp"

    def __str__(self) -> str:
        return f"{self.proto} {at(self.address, self.port)}"


@dataclass(frozen=True)
class Setting:
    """A path or name, the variable that has it, what to do about it, and where a name is looked up if not on PATH."""

    value: str
    variable: str
    remedy: str = ""
    search: str = ""


def check_listeners(listeners: Iterable[Listener], state_folder: str) -> Iterator[str]:
    """Addresses that do not exist, ports that need root, and ports in use by others than the mesh itself."""
    listeners = list(listeners)
    yield from _check_each_other(listeners)
    missing = {address for address in {listener.address for listener in listeners} if not sockets.is_local(address)}
    yield from _missing_addresses([listener for listener in listeners if listener.address in missing])
    present = [listener for listener in listeners if listener.address not in missing]
    errors = [(listener, sockets.bind_error(listener.address, listener.port, listener.proto)) for listener in present]
    yield from _check_in_use([listener for listener, error in errors if error == errno.EADDRINUSE], state_folder)
    for listener, error in errors:
        if error == errno.EACCES:
            yield _privileged(listener)
        elif error not in (0, errno.EADDRINUSE):
            yield f"{_subject(listener)} cannot listen on {listener}: {os.strerror(error)}; choose another port"


def check_folders(folders: Iterable[Setting]) -> Iterator[str]:
    """Folders that cannot be made or written, or are on a full disk."""
    for folder in folders:
        problem = _folder_problem(Path(folder.value))
        if problem:
            yield f"{folder.variable}: {folder.value}: {problem}"


def check_unix_sockets(paths: Iterable[Setting]) -> Iterator[str]:
    """Paths too long for a unix socket, which otherwise shows as an obscure error of supervisord."""
    longest = _SOCKET_PATH_BYTES - _DRAFT_SUFFIX_BYTES
    for path in paths:
        length = len(os.fsencode(path.value))
        if length > longest:
            yield (
                f"{path.variable}: {path.value}: is {length} bytes long, and the path of a unix socket may have"
                f" {longest}; choose a shorter folder"
            )


def check_watches(needed: int, state_folder: str) -> Iterator[str]:
    """Too few inotify instances for the files that the mesh's Envoys watch, ``needed`` in all."""
    limit = watches.limit()
    if limit is None:
        return
    used = watches.used()
    own = sum(count for pid, count in used.items() if sockets.environment(pid).get(MESH_VARIABLE) == state_folder)
    more, left = needed - own + SPARE_WATCHES, limit - sum(used.values())
    if needed > own and more > left:
        yield (
            f"{watches.LIMIT}: {limit}: the Envoys of this mesh need {more} more inotify instances, one for each file"
            f" they watch, and {_user()} has {max(0, left)} left; allow more"
            f" (sudo sysctl {watches.LIMIT}={_power_of_two(limit + more - left)}), or stop what else watches files"
        )


def check_binaries(binaries: Iterable[Setting]) -> Iterator[str]:
    """Programs that are not there, or cannot be executed."""
    for binary in binaries:
        path = binary.search or os.environ.get("PATH", os.defpath)
        if not shutil.which(binary.value, path=path):
            where = "is no executable file" if os.sep in binary.value else f"is not on PATH ({path})"
            yield f"{binary.variable}: {binary.value}: {where}; {binary.remedy or 'install it, or name another'}"


def at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _subject(listener: Listener) -> str:
    return f"{listener.variable}: {listener.port}: {listener.owner}"


def _check_each_other(listeners: list[Listener]) -> Iterator[str]:
    by_port: dict[tuple[str, int], list[Listener]] = {}
    for listener in listeners:
        others = by_port.setdefault((listener.proto, listener.port), [])
        for other in others:
            if sockets.overlap(listener.address, other.address):
                yield (
                    f"{_subject(listener)} would listen on {listener}, where {other.owner} listens"
                    f" ({other.variable}, {other}); choose another port for one of them"
                )
        others.append(listener)


def _missing_addresses(listeners: list[Listener]) -> Iterator[str]:
    """One line for all loopback addresses, which are missing together, and one for each other."""
    loopback = sorted({listener.address for listener in listeners if listener.address.startswith("127.")})
    if loopback:
        others = f" and {len(loopback) - 1} more" if len(loopback) > 1 else ""
        variable = next((listener.variable for listener in listeners if listener.address == loopback[0]), "")
        yield (
            f"{variable}: {loopback[0]}: this loopback address{others} cannot be used; every replica has an address in"
            " 127.0.0.0/8, which Linux provides as a whole while the interface lo is up (ip link set lo up)"
        )
    for listener in listeners:
        if listener.address not in loopback:
            yield f"{listener.variable}: {listener.address}: no interface has this address; choose one that exists"


def _check_in_use(listeners: list[Listener], state_folder: str) -> Iterator[str]:
    """Ports of which a look into /proc does not say that the mesh itself has them."""
    candidates = {
        listener: [
            bound
            for bound in sockets.bound_sockets(listener.proto)
            if bound.port == listener.port and sockets.overlap(bound.address, listener.address)
        ]
        for listener in listeners
    }
    everyone = {bound for bounds in candidates.values() for bound in bounds}
    holders = {holder.socket: holder for holder in sockets.holders(everyone)}
    for listener, bounds in candidates.items():
        foreign = [holders[bound] for bound in bounds if not _is_ours(holders[bound], state_folder)]
        if foreign or not bounds:
            yield _in_use(listener, foreign)


def _in_use(listener: Listener, foreign: list[sockets.Holder]) -> str:
    if not foreign:
        return f"{_subject(listener)} needs {listener}, which is in use; choose another port"
    held = " and ".join(f"{_who(holder)} on {at(holder.socket.address, holder.socket.port)}" for holder in foreign)
    return f"{_subject(listener)} needs {listener}, which is held by {held}; stop that process, or choose another port"


def _who(holder: sockets.Holder) -> str:
    folder = _mesh_of(holder)
    return f"{holder} of the mesh in {folder}" if folder else str(holder)


def _is_ours(holder: sockets.Holder, state_folder: str) -> bool:
    return _mesh_of(holder) == state_folder


def _mesh_of(holder: sockets.Holder) -> str:
    prefix = f"{MESH_VARIABLE}="
    return next((item[len(prefix) :] for item in holder.environment if item.startswith(prefix)), "")


def _privileged(listener: Listener) -> str:
    first = Path("/proc/sys", *_UNPRIVILEGED.split("."))
    limit = first.read_text(encoding="utf-8").strip() if first.exists() else "1024"
    return (
        f"{_subject(listener)} may not listen on {listener}: ports below {limit} need root; choose a port from {limit},"
        f" or allow it (sudo sysctl {_UNPRIVILEGED}={listener.port})"
    )


def _folder_problem(path: Path) -> str:
    existing = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
    if not existing.is_dir():
        return f"{existing} is no folder; remove it, or choose another folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        whose = "" if existing == path else f", since nothing can be made in {existing}"
        return f"cannot be written by {_user()}{whose}; choose another folder, or make it writable"
    free = shutil.disk_usage(existing).free // _MEGABYTE
    if free < FREE_MEGABYTES:
        return f"only {free} MB are free, and {FREE_MEGABYTES} are needed at least; make room, or choose another folder"
    return ""


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _user() -> str:
    return f"user {os.environ.get('USER') or os.geteuid()}"
