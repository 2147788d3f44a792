"""What tests of the local engine need: addresses, a supervisord of their own, modules run as Ansible runs them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import ServerProxy

from supervisor.xmlrpc import SupervisorTransport

ROOT = Path(__file__).resolve().parent.parent.parent
COLLECTIONS = ROOT / ".collections"
BIN = Path(sys.executable).parent
PORTS = range(21000, 28000)
"""Below those that clients are given, and none of molecule's, which may run at the same time."""
MODULES = "ansible_collections.sidecar.mesh.plugins.modules"

Result = dict[str, Any]


def loopback() -> str:
    """A loopback address that, in all likelihood, nobody else uses."""
    return ".".join(["127", *(str(random.randint(2, 250)) for _round in range(3))])


def free_port(address: str = "0.0.0.0", kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that nobody uses, and that Linux gives to no client."""
    while not is_free(address, port := random.choice(PORTS), kind):
        pass
    return port


def is_free(address: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    with socket.socket(type=kind) as probe, contextlib.suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
        probe.bind((address, port))
        return True
    return False


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 10) -> Any:
    """The condition's first true value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def start_module(
    name: str, arguments: dict[str, Any], *, check: bool = False, before: Iterable[str] = ()
) -> subprocess.Popen[str]:
    """A module's process, with its arguments on the way; a command may stand before Python's."""
    process = subprocess.Popen(
        [*before, sys.executable, "-m", f"{MODULES}.{name}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
    )
    assert process.stdin
    process.stdin.write(
        json.dumps({"ANSIBLE_MODULE_ARGS": {**arguments, "_ansible_check_mode": check, "_ansible_diff": True}})
    )
    process.stdin.close()
    process.stdin = None
    return process


def run_module(name: str, arguments: dict[str, Any], **how: Any) -> Result:
    """What a module returns, failed or not."""
    output, errors = start_module(name, arguments, **how).communicate(timeout=120)
    assert output.strip(), errors
    result: Result = json.loads(output)
    result.pop("invocation", None)
    return result


def play(folder: Path, module: str, arguments: dict[str, Any], *options: str) -> str:
    """The output of a play with one task, packed and printed by Ansible itself."""
    task = {f"sidecar.mesh.{module}": arguments}
    hosts = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    hosts["vars"] = {"ansible_python_interpreter": sys.executable}
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([hosts]))
    command = [BIN / "ansible-playbook", "-i", "localhost,", *options, playbook]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout + done.stderr


class Supervisord:
    """A supervisord in a folder, with the settings local_processes asks for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "supervisor.sock"
        self.programs_file = folder / "programs.conf"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "supervisord.conf").write_text(
            "[supervisord]\nlogfile=%(here)s/supervisord.log\npidfile=%(here)s/supervisord.pid\nminfds=1024\n"
            "[unix_http_server]\nfile=%(here)s/supervisor.sock\nchmod=0700\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            "[include]\nfiles=programs.conf others.conf\n"
        )

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def start(self) -> None:
        command = [BIN / "supervisord", "--nodaemon", "-c", self.folder / "supervisord.conf"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        wait_until(self._answers, "supervisord answers")

    def kill(self) -> None:
        assert self._process
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End all at once; supervisord itself stops one program after the other."""
        if not self._process or self._process.poll() is not None:
            return
        pids = []
        # One that is told to stop takes its socket away before it ends.
        with contextlib.suppress(OSError):
            pids = [pid for pid in self.pids().values() if pid]
        self.kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def run(self, programs: list[dict[str, Any]], state: str = "started", **more: Any) -> Result:
        """The result of local_processes."""
        return run_module("local_processes", self.arguments(programs, state, **more), check=more.pop("check", False))

    def arguments(self, programs: list[dict[str, Any]], state: str, **more: Any) -> dict[str, Any]:
        more.pop("check", None)
        return {
            "socket": str(self.socket),
            "programs_file": str(self.programs_file),
            "programs": programs,
            "state": state,
            "timeout": 10,
        } | more

    def program(self, name: str, *command: object, **more: Any) -> dict[str, Any]:
        """An entry for run(); without a command, one that runs until it is stopped."""
        return {
            "name": name,
            "command": [str(word) for word in command or ("sleep", "3600")],
            "directory": str(self.folder),
            "log": str(self.folder / f"{name}.log"),
        } | more

    def pids(self) -> dict[str, int]:
        """Pid of each active program, 0 where it does not run."""
        return {info["name"]: info["pid"] for info in self.rpc().getAllProcessInfo()}

    def rpc(self) -> Any:
        transport = SupervisorTransport(serverurl=f"unix://{self.socket}")
        return ServerProxy("http://localhost", transport=transport).supervisor

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.socket))
            return True
        return False


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def started_with(pid: int) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of a process."""
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")[:-1]
    return arguments, dict(variable.split("=", 1) for variable in variables)


@dataclass
class Answer:
    """What a client got; ``closes`` when it was told to leave."""

    status: int
    body: str
    closes: bool


class Client:
    """A client that keeps its connection, and leaves when it is told to."""

    def __init__(self, address: str, port: int) -> None:
        self.connection = http.client.HTTPConnection(address, port, timeout=15)

    def get(self, path: str = "/", method: str = "GET") -> Answer:
        self.connection.request(method, path)
        response = self.connection.getresponse()
        body = response.read().decode()
        return Answer(response.status, body, response.getheader("connection") == "close")

    def close(self) -> None:
        self.connection.close()


@contextlib.contextmanager
def background(function: Callable[[], None]) -> Iterator[threading.Thread]:
    """Runs a function beside the block and joins it at the block's end."""
    thread = threading.Thread(target=function)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
        assert not thread.is_alive()
