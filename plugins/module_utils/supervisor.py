# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talks to a running supervisord: XML-RPC over its unix socket, without supervisor's own package.

Nothing here restarts or reloads supervisord itself, which would restart every program.
"""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

Answer = TypeVar("Answer")

ANSWER_SECONDS = 10.0
_LOG_TAIL = 64 * 1024

# Faults that say: it is so already (supervisor/xmlrpc.py, class Faults).
_BAD_NAME = 10
_ALREADY_STARTED = 60
_NOT_RUNNING = 70
_ALREADY_ADDED = 90
_STILL_RUNNING = 91
_CANT_REREAD = 92


class SupervisorError(Exception):
    """Supervisord does not answer, or refuses."""


class UnreadableConfigError(SupervisorError):
    """Supervisord cannot read its files. What runs goes on."""


@dataclass(frozen=True)
class Process:
    """A program as supervisord sees it. ``start`` and ``now`` are whole seconds since 1970 of supervisord's clock."""

    name: str
    state: str
    """STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED, FATAL or UNKNOWN."""
    start: int
    now: int
    error: str
    """Why the last start failed, when supervisord itself knows: a missing binary, no permission."""
    log: str


@dataclass(frozen=True)
class Difference:
    """Programs whose definition in the files is not the active one."""

    added: list[str]
    changed: list[str]
    removed: list[str]


class Supervisor:
    """A connection to the supervisord that listens at a socket. Every call raises SupervisorError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._rpc: Any = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=_UnixTransport(path)).supervisor

    def answers(self) -> bool:
        """Whether a supervisord is there. A socket that may not be opened is an error, not an absence."""
        try:
            self._rpc.getPID()
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except xmlrpc.client.Fault:
            return True  # on its way out (SHUTDOWN_STATE), and not gone yet
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise self._error(error) from error
        return True

    def launch(self, command: list[str], seconds: float) -> None:
        """Start a supervisord that turns itself into a daemon, and wait until it answers."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SupervisorError(f"supervisord does not start: {(done.stderr or done.stdout).strip()}")
        self._await(True, seconds, "does not answer")

    def shutdown(self, seconds: float) -> None:
        """Stop every program and supervisord itself, and wait until it is gone."""
        self._call(self._rpc.shutdown)
        self._await(False, seconds, "still runs")

    def _await(self, answers: bool, seconds: float, problem: str) -> None:
        deadline = time.monotonic() + seconds
        while self.answers() != answers:
            if time.monotonic() > deadline:
                raise SupervisorError(f"supervisord {problem} at {self.path} after {seconds:g} seconds")
            time.sleep(0.05)

    def processes(self) -> dict[str, Process]:
        """The active programs by name; what others defined as groups of several is left out."""
        infos = self._call(self._rpc.getAllProcessInfo)
        return {info["name"]: _process(info) for info in infos if info["name"] == info["group"]}

    def reread(self) -> Difference:
        """Have the files read. No process is touched; what was added and changed takes effect by add()."""
        try:
            added, changed, removed = self._call(self._rpc.reloadConfig)[0]
        except _FaultError as fault:
            if fault.code != _CANT_REREAD:
                raise
            raise UnreadableConfigError(str(fault)) from fault
        return Difference(added, changed, removed)

    def add(self, name: str) -> None:
        """Make a program active as the files define it, which starts it."""
        self._unless(_ALREADY_ADDED, self._rpc.addProcessGroup, name)

    def start(self, name: str) -> None:
        """Start an active program that stands still. A failure to do so shows in its state."""
        try:
            self._unless(_ALREADY_STARTED, self._rpc.startProcess, name, False)
        except _FaultError:
            if self.processes()[name].state == "STOPPED":
                raise

    def stop(self, name: str) -> None:
        """Ask a program to stop, without waiting. After its stop_seconds, supervisord kills it."""
        self._unless(_NOT_RUNNING, self._rpc.stopProcess, name, False)

    def remove(self, name: str) -> bool:
        """Forget a program. False while it still runs."""
        try:
            self._unless(_BAD_NAME, self._rpc.removeProcessGroup, name)
        except _FaultError as fault:
            if fault.code == _STILL_RUNNING:
                return False
            raise
        return True

    def last_exit(self, name: str) -> str:
        """How a program ended last, from supervisord's log ("exit status 3", "terminated by SIGSEGV"), or "".

        The state holds no exit status for a process that ends within its first second.
        """
        try:
            log = self._call(self._rpc.readLog, -_LOG_TAIL, 0)
        except SupervisorError:
            return ""
        exits = re.findall(rf" exited: {re.escape(name)} \((.*?)(?:; (?:not )?expected)?\)$", log, re.MULTILINE)
        return exits[-1] if exits else ""

    def _unless(self, code: int, method: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._call(method, *arguments)
        except _FaultError as fault:
            if fault.code != code:
                raise

    def _call(self, method: Callable[..., Answer], *arguments: Any) -> Answer:
        try:
            return method(*arguments)
        except xmlrpc.client.Fault as fault:
            raise _FaultError(fault) from fault
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> SupervisorError:
        return SupervisorError(f"supervisord does not answer at {self.path}: {error}")


class _FaultError(SupervisorError):
    def __init__(self, fault: xmlrpc.client.Fault) -> None:
        super().__init__(f"supervisord: {fault.faultString}")
        self.code = fault.faultCode


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._kept: _UnixConnection | None = None

    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - the path is the host
        if self._kept is None:
            self._kept = _UnixConnection(self._path)
        return self._kept

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None


def _process(info: dict[str, Any]) -> Process:
    return Process(
        name=info["name"],
        state=info["statename"],
        start=info["start"],
        now=info["now"],
        error=info["spawnerr"],
        log=info["stdout_logfile"],
    )
