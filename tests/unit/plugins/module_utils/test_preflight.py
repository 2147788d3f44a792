"""The checks of a machine one by one; all together: tests/behaviour/test_local_preflight.py."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import preflight, sockets
from ansible_collections.sidecar.mesh.plugins.module_utils.preflight import Listener, Setting

STATE = "/home/u/.local/state/sidecar-mesh/demo"
ADDRESS = "127.91.18.3"


def listener(address: str = ADDRESS, port: int = 0, name: str = "front", proto: str = "tcp") -> Listener:
    return Listener(address, port, owner=f"the {name}", variable=f"{name}.port", proto=proto)


def errors(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Every bind ends in this error."""
    monkeypatch.setattr(sockets, "bind_error", lambda _address, _port, _proto: error)


def test_free_ports_are_no_problem() -> None:
    assert list(preflight.check_listeners([listener(), listener(proto="udp")], STATE)) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [((ADDRESS, 8080), (ADDRESS, 8080)), (("0.0.0.0", 8080), (ADDRESS, 8080)), ((ADDRESS, 8080), ("::", 8080))],
)
def test_listeners_in_each_others_way(
    monkeypatch: pytest.MonkeyPatch, first: tuple[str, int], second: tuple[str, int]
) -> None:
    errors(monkeypatch, 0)
    listeners = [listener(*first), listener(*second, name="app")]
    assert "\n".join(preflight.check_listeners(listeners, STATE)) == (
        f"app.port: 8080: the app would listen on tcp {preflight.at(*second)}, where the front listens"
        f" (front.port, tcp {preflight.at(*first)}); choose another port for one of them"
    )


def test_listeners_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    errors(monkeypatch, 0)
    listeners = [
        listener(port=8080),
        listener(port=8080, proto="udp"),
        listener(port=8081),
        listener("127.91.18.4", 8080),
    ]
    assert list(preflight.check_listeners(listeners, STATE)) == []


def test_missing_loopback_addresses_are_one_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "is_local", lambda _address: False)
    listeners = [listener(port=1), listener(port=2), listener("127.91.18.4", 1, "app")]
    assert "\n".join(preflight.check_listeners(listeners, STATE)) == (
        "front.port: 127.91.18.3: this loopback address and 1 more cannot be used; every replica has an address in"
        " 127.0.0.0/8, which Linux provides as a whole while the interface lo is up (ip link set lo up)"
    )


def test_address_nobody_has() -> None:
    assert list(preflight.check_listeners([listener("192.0.2.1", 8080)], STATE)) == [
        "front.port: 192.0.2.1: no interface has this address; choose one that exists"
    ]


def test_privileged_port(monkeypatch: pytest.MonkeyPatch) -> None:
    errors(monkeypatch, 13)
    (problem,) = preflight.check_listeners([listener(port=443)], STATE)
    limit = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip()
    assert problem == (
        f"front.port: 443: the front may not listen on tcp 127.91.18.3:443: ports below {limit} need root; choose a"
        f" port from {limit}, or allow it (sudo sysctl net.ipv4.ip_unprivileged_port_start=443)"
    )


def test_other_errors_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    errors(monkeypatch, 105)
    assert list(preflight.check_listeners([listener(port=80, name="app")], STATE)) == [
        f"app.port: 80: the app cannot listen on tcp {ADDRESS}:80: No buffer space available; choose another port"
    ]


def test_port_in_use_by_nobody_that_listens() -> None:
    with socket.socket() as bound:
        bound.bind((ADDRESS, 0))
        port = bound.getsockname()[1]
        assert list(preflight.check_listeners([listener(port=port)], STATE)) == [
            f"front.port: {port}: the front needs tcp 127.91.18.3:{port}, which is in use; choose another port"
        ]


def test_folders_that_are_there_or_can_be_made(tmp_path: Path) -> None:
    folders = [Setting(str(tmp_path), "a"), Setting(str(tmp_path / "new" / "deep"), "b")]
    assert list(preflight.check_folders(folders)) == []
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    folders = [Setting(str(tmp_path / name), "state_path") for name in ("file", "file/below", "dangling/below")]
    assert list(preflight.check_folders(folders)) == [
        f"state_path: {tmp_path}/file: {tmp_path}/file is no folder; remove it, or choose another folder",
        f"state_path: {tmp_path}/file/below: {tmp_path}/file is no folder; remove it, or choose another folder",
        f"state_path: {tmp_path}/dangling/below: {tmp_path}/dangling is no folder; remove it, or choose another folder",
    ]


def test_folders_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != tmp_path)
    monkeypatch.setenv("USER", "ada")
    remedy = "choose another folder, or make it writable"
    folders = [Setting(str(tmp_path), "a"), Setting(str(tmp_path / "x" / "y"), "b")]
    assert list(preflight.check_folders(folders)) == [
        f"a: {tmp_path}: cannot be written by user ada; {remedy}",
        f"b: {tmp_path}/x/y: cannot be written by user ada, since nothing can be made in {tmp_path}; {remedy}",
    ]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _rest: usage(10**9, 10**9, 3 * 1024**2))
    assert list(preflight.check_folders([Setting(str(tmp_path), "state_path")])) == [
        f"state_path: {tmp_path}: only 3 MB are free, and 50 are needed at least; make room, or choose another folder"
    ]


def test_unix_sockets() -> None:
    fits, too_long = "/" + "x" * 98, "/" + "x" * 99
    assert list(preflight.check_unix_sockets([Setting(fits, "a"), Setting(too_long, "b")])) == [
        f"b: {too_long}: is 100 bytes long, and the path of a unix socket may have 99; choose a shorter folder"
    ]


def test_longest_unix_socket_is_one_supervisord_can_bind(tmp_path: Path) -> None:
    """Supervisord binds to the path with its pid at its end; the largest pid has 7 digits."""
    path = f"{tmp_path}/".ljust(99, "x")
    with socket.socket(socket.AF_UNIX) as draft:
        draft.bind(f"{path}.4194304")


def test_binaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").touch(mode=0o755)
    (tmp_path / "text").touch(mode=0o644)
    monkeypatch.setenv("PATH", str(tmp_path))
    binaries = [
        Setting("runs", "a"),
        Setting(f"{tmp_path}/runs", "b"),
        Setting("text", "c", "install it"),
        Setting(f"{tmp_path}/text", "d"),
        Setting("absent", "e", "install util-linux"),
    ]
    assert list(preflight.check_binaries(binaries)) == [
        f"c: text: is not on PATH ({tmp_path}); install it",
        f"d: {tmp_path}/text: is no executable file; install it, or name another",
        f"e: absent: is not on PATH ({tmp_path}); install util-linux",
    ]


def test_every_problem_names_variable_value_and_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    errors(monkeypatch, 13)
    problems = [
        *preflight.check_listeners([listener(port=443), listener(port=443, name="app")], STATE),
        *preflight.check_folders([Setting(str(tmp_path / "file"), "state_path")]),
        *preflight.check_unix_sockets([Setting("x" * 200, "state_path")]),
        *preflight.check_binaries([Setting("absent", "python")]),
    ]
    assert len(problems) == 6
    assert all(re.fullmatch(r"[\w.]+: \S+: .+; .+", problem) for problem in problems)
