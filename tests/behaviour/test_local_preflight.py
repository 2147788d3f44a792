"""Module local_preflight with real sockets, processes and folders."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.modules import local_preflight
from behaviour.machine import free_port, loopback, play, run_module

STATE = "/home/ada/.local/state/sidecar-mesh/demo"
FINE = {"changed": False, "problems": []}
NOBODY = 65534


def listener(address: str, port: int, proto: str = "tcp") -> dict[str, Any]:
    return {"address": address, "port": port, "proto": proto, "owner": "front proxy edge", "variable": "fronts[0].port"}


def preflight(*listeners: dict[str, Any], check: bool = False, **more: Any) -> dict[str, Any]:
    arguments = {"state_folder": STATE, "listeners": list(listeners)} | more
    return run_module("local_preflight", arguments, check=check)


def problems_of_nobody(*listeners: dict[str, Any], **more: Any) -> list[str]:
    """What the module finds for an ordinary user, who may be unable to read this checkout or to run its Python."""
    arguments = {"listeners": list(listeners), "folders": [], "unix_sockets": [], "binaries": []} | more
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, mp_context=fork, initializer=become_nobody) as nobody:
        return nobody.submit(local_preflight.check, {"state_folder": STATE} | arguments).result()


def become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@contextlib.contextmanager
def holding(code: str, *arguments: object, **environment: str) -> Iterator[tuple[int, int]]:
    """Another process with sockets: its pid, and the port it prints."""
    script = f"import socket, sys\n{code}\nprint(s.getsockname()[1], flush=True)\nsys.stdin.read()"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    ) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.stdin.close()


LISTEN = "s = socket.create_server((sys.argv[1], 0))"
DUAL_STACK = "s = socket.create_server(('', 0), family=socket.AF_INET6, dualstack_ipv6=True)"
SHARING = (
    "s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)\ns.bind((sys.argv[1], 0)); s.listen()"
)
UDP = "s = socket.socket(type=socket.SOCK_DGRAM); s.bind((sys.argv[1], 0))"


def test_nothing_wrong(tmp_path: Path) -> None:
    address = loopback()
    result = preflight(
        listener(address, free_port(address)),
        listener("0.0.0.0", free_port()),
        listener("::", free_port()),
        listener(address, free_port(address, socket.SOCK_DGRAM), "udp"),
        folders=[{"path": str(tmp_path / "new"), "variable": "state_path"}],
        unix_sockets=[{"path": "/short.sock", "variable": "state_path"}],
        binaries=[{"path": "setpriv", "variable": "PATH"}, {"path": sys.executable, "variable": "python"}],
    )
    assert result == FINE
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "proto", "where"),
    [
        (LISTEN, "tcp", "{address}:{port}"),
        (LISTEN.replace("sys.argv[1]", "'0.0.0.0'"), "tcp", "0.0.0.0:{port}"),
        (DUAL_STACK, "tcp", "[::]:{port}"),
        (SHARING, "tcp", "{address}:{port}"),
        (SHARING.replace("sys.argv[1]", "'0.0.0.0'"), "tcp", "0.0.0.0:{port}"),
        (UDP, "udp", "{address}:{port}"),
        (UDP.replace("sys.argv[1]", "'0.0.0.0'"), "udp", "0.0.0.0:{port}"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_port_that_another_process_holds(code: str, proto: str, where: str, check: bool) -> None:
    address = loopback()
    with holding(code, address) as (pid, port):
        result = preflight(listener(address, port, proto), check=check)
    held = where.format(address=address, port=port)
    assert result["failed"] is True
    assert result["problems"] == [result["msg"]]
    assert re.fullmatch(
        rf"fronts\[0\]\.port: {port}: front proxy edge needs {proto} {address}:{port}, which is held by"
        rf" pid {pid} \({re.escape(sys.executable)} -c import socket, sys .{{1,100}}\.\.\.\) on {re.escape(held)};"
        r" stop that process, or choose another port",
        result["msg"],
        re.DOTALL,
    ), result["msg"]


def test_wildcard_needs_every_address() -> None:
    with holding(LISTEN, loopback()) as (_pid, port):
        assert f"front proxy edge needs tcp 0.0.0.0:{port}" in preflight(listener("0.0.0.0", port))["msg"]


def test_same_port_elsewhere_or_of_the_other_protocol_is_free() -> None:
    address = loopback()
    with holding(LISTEN, address) as (_pid, port):
        assert preflight(listener(loopback(), port), listener(address, port, "udp")) == FINE


@pytest.mark.parametrize(("code", "proto"), [(LISTEN, "tcp"), (UDP, "udp")])
def test_port_that_the_mesh_itself_holds(code: str, proto: str) -> None:
    address = loopback()
    with holding(code, address, SIDECAR_MESH=STATE) as (_pid, port):
        assert preflight(listener(address, port, proto)) == FINE


def test_port_that_another_mesh_holds() -> None:
    address = loopback()
    with holding(LISTEN, address, SIDECAR_MESH=f"{STATE}2") as (pid, port):
        message = preflight(listener(address, port))["msg"]
    assert f" held by pid {pid} (" in message
    assert f") of the mesh in {STATE}2 on {address}:{port};" in message


def test_port_shared_with_a_foreign_process() -> None:
    """The mesh's own socket does not hide the other one."""
    address = loopback()
    with holding(SHARING, address) as (pid, port):
        share = SHARING.replace("(sys.argv[1], 0)", "(sys.argv[1], int(sys.argv[2]))")
        with holding(share, address, port, SIDECAR_MESH=STATE):
            message = preflight(listener(address, port))["msg"]
    assert f" held by pid {pid} (" in message
    assert message.count("pid") == 1


def test_everything_wrong_is_one_message(tmp_path: Path) -> None:
    address = loopback()
    (tmp_path / "file").touch()
    with holding(LISTEN, address) as (_first_pid, first), holding(LISTEN, address) as (_second_pid, second):
        result = preflight(
            listener(address, first),
            listener(address, second),
            listener(address, 0) | {"address": "192.0.2.1"},
            folders=[{"path": f"{tmp_path}/file/state", "variable": "state_path"}],
            unix_sockets=[{"path": "/" + "x" * 120, "variable": "state_path"}],
            binaries=[{"path": "no-such-binary", "variable": "tools", "remedy": "install it"}],
        )
    beginnings = [
        "tools: no-such-binary: is not on PATH (",
        f"state_path: {tmp_path}/file/state: {tmp_path}/file is no folder; ",
        "state_path: /xxx",
        "fronts[0].port: 192.0.2.1: no interface has this address; ",
        f"fronts[0].port: {first}: front proxy edge needs ",
        f"fronts[0].port: {second}: front proxy edge needs ",
    ]
    lines = result["msg"].splitlines()
    assert lines == result["problems"]
    assert [line.startswith(beginning) for line, beginning in zip(lines, beginnings, strict=True)] == [True] * 6, lines


def test_running_mesh_of_many_processes_is_checked_quickly() -> None:
    address = loopback()
    many = (
        "from pathlib import Path\n"
        "sockets = [socket.create_server((sys.argv[1], 0)) for _round in range(200)]\n"
        "Path(sys.argv[2]).write_text(' '.join(str(s.getsockname()[1]) for s in sockets))\n"
        "s = sockets[0]"
    )
    with subprocess.Popen(["sleep", "60"]) as other:
        ports_file = Path(f"/tmp/ports-{other.pid}")
        try:
            with holding(many, address, ports_file, SIDECAR_MESH=STATE):
                ports = [int(port) for port in ports_file.read_text().split()]
                assert len(ports) == 200
                assert preflight(*(listener(address, port) for port in ports)) == FINE
        finally:
            ports_file.unlink(missing_ok=True)
            other.kill()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@needs_root
def test_port_held_by_somebody_else() -> None:
    """An ordinary user may not look into another one's processes."""
    address = loopback()
    with holding(LISTEN, address, SIDECAR_MESH=STATE) as (_pid, port):
        (message,) = problems_of_nobody(listener(address, port))
    assert message == (
        f"fronts[0].port: {port}: front proxy edge needs tcp {address}:{port}, which is held by a process of another"
        f" user (uid 0) on {address}:{port}; stop that process, or choose another port"
    )


@needs_root
def test_privileged_port_of_an_ordinary_user() -> None:
    limit = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if limit == 0:
        pytest.skip("this machine has no privileged ports")
    address = loopback()
    assert problems_of_nobody(listener(address, limit)) == []
    (problem,) = problems_of_nobody(listener(address, limit - 1))
    assert problem == (
        f"fronts[0].port: {limit - 1}: front proxy edge may not listen on tcp {address}:{limit - 1}: ports below"
        f" {limit} need root; choose a port from {limit}, or allow it (sudo sysctl"
        f" net.ipv4.ip_unprivileged_port_start={limit - 1})"
    )


@needs_root
def test_folders_of_somebody_else(tmp_path: Path) -> None:
    """One that may not be written, and one in a folder that may not even be looked into."""
    with open_to_all(tmp_path):
        (tmp_path / "readable").mkdir(mode=0o755)
        (tmp_path / "private" / "deep").mkdir(mode=0o700, parents=True)
        (tmp_path / "private").chmod(0o700)
        own = tmp_path / "own"
        own.mkdir()
        os.chown(own, NOBODY, NOBODY)
        paths = [own, own / "new", tmp_path / "readable" / "new", tmp_path / "private" / "deep"]
        folders = [{"path": str(path), "variable": "state_path"} for path in paths]
        problems = problems_of_nobody(folders=folders)
    assert [
        problem.split(", since")[0].replace(f"user {os.environ.get('USER')}", "user 65534") for problem in problems
    ] == [
        f"state_path: {tmp_path}/readable/new: cannot be written by user 65534",
        f"state_path: {tmp_path}/private/deep: cannot be written by user 65534",
    ]


@contextlib.contextmanager
def open_to_all(folder: Path) -> Iterator[None]:
    """pytest keeps its folders to itself; this lets others through to one."""
    shut = [path for path in (folder, *folder.parents) if not path.stat().st_mode & 0o001]
    modes = {path: path.stat().st_mode for path in shut}
    for path in shut:
        path.chmod(0o755)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare of util-linux")
def test_loopback_that_is_down() -> None:
    """In a network of its own, where lo has not been brought up."""
    if subprocess.run(["unshare", "--net", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make a network namespace")
    listeners = [
        {"address": f"127.7.{number}.1", "port": 8080, "owner": "app", "variable": f"apps[{number}].port"}
        for number in range(3)
    ]
    result = run_module("local_preflight", {"state_folder": STATE, "listeners": listeners}, before=["unshare", "--net"])
    assert result["msg"] == (
        "apps[0].port: 127.7.0.1: this loopback address and 2 more cannot be used; every replica has an address in"
        " 127.0.0.0/8, which Linux provides as a whole while the interface lo is up (ip link set lo up)"
    )


def test_through_ansible(tmp_path: Path) -> None:
    address = loopback()
    port = free_port(address)
    arguments = {"state_folder": STATE, "listeners": [listener(address, port)]}
    assert "ok=1 " in play(tmp_path, "local_preflight", arguments, "--check")
    with socket.create_server((address, port)):
        output = play(tmp_path, "local_preflight", arguments)
    assert f"front proxy edge needs tcp {address}:{port}, which is held by pid {os.getpid()} (" in output
