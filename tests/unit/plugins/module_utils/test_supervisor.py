"""The client of supervisord, where no supervisord is; with one: tests/behaviour/test_local_processes.py."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading
import xmlrpc.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.supervisor import (
    Process,
    Supervisor,
    SupervisorError,
    UnreadableConfigError,
)

INFO = {
    "name": "a", "group": "a", "statename": "RUNNING", "start": 5, "now": 7, "spawnerr": "", "stdout_logfile": "/a.log",
    "pid": 1, "exitstatus": 0,
}  # fmt: skip


class FakeSupervisord(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each method with what the test put there: a value, or a fault."""

    daemon_threads = True

    def __init__(self, path: str) -> None:
        super().__init__(path, Handler)
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.connections = 0


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeSupervisord  # type: ignore[assignment]

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        parameters, method = xmlrpc.client.loads(self.rfile.read(int(self.headers["content-length"])))
        assert method
        name = method.removeprefix("supervisor.")
        self.server.calls.append((name, parameters))
        answer = self.server.answers[name]
        body = xmlrpc.client.dumps(
            answer if isinstance(answer, xmlrpc.client.Fault) else (answer,), methodresponse=True
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_rest: object) -> None:
        pass


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSupervisord]:
    with FakeSupervisord(str(tmp_path / "s.sock")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(fake: FakeSupervisord) -> Supervisor:
    return Supervisor(str(fake.server_address))


def fault(code: int, text: str = "TEXT") -> xmlrpc.client.Fault:
    return xmlrpc.client.Fault(code, text)


def test_nobody_there(tmp_path: Path) -> None:
    assert Supervisor(str(tmp_path / "absent.sock")).answers() is False


def test_socket_left_behind(tmp_path: Path) -> None:
    path = str(tmp_path / "stale.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    assert Supervisor(path).answers() is False


def test_other_errors_are_no_absence(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    path = str(tmp_path / "folder" / "file" / "s.sock")
    with pytest.raises(SupervisorError, match=f"^supervisord does not answer at {path}: .*Not a directory$"):
        Supervisor(path).answers()


def test_calls_share_one_connection(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"getPID": 1, "getAllProcessInfo": []}
    assert client.answers() is True
    client.processes()
    client.processes()
    assert fake.connections == 1


def test_processes_leave_out_groups_of_several(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"getAllProcessInfo": [INFO, {**INFO, "name": "b", "group": "many"}]}
    assert client.processes() == {"a": Process("a", "RUNNING", start=5, now=7, error="", log="/a.log")}


def test_reread(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"reloadConfig": [[["new"], ["other"], ["gone"]]]}
    difference = client.reread()
    assert (difference.added, difference.changed, difference.removed) == (["new"], ["other"], ["gone"])


def test_unreadable_files(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"reloadConfig": fault(92, "CANT_REREAD: line 3")}
    with pytest.raises(UnreadableConfigError, match=r"^supervisord: CANT_REREAD: line 3$"):
        client.reread()


@pytest.mark.parametrize(
    ("method", "call", "code"),
    [
        ("add", "addProcessGroup", 90),
        ("start", "startProcess", 60),
        ("stop", "stopProcess", 70),
        ("remove", "removeProcessGroup", 10),
    ],
)
def test_what_is_so_already_is_no_error(
    client: Supervisor, fake: FakeSupervisord, method: str, call: str, code: int
) -> None:
    fake.answers = {call: fault(code)}
    assert getattr(client, method)("a") in (None, True)
    fake.answers = {call: fault(1), "getAllProcessInfo": [{**INFO, "statename": "STOPPED"}]}
    with pytest.raises(SupervisorError, match=r"^supervisord: TEXT$"):
        getattr(client, method)("a")


def test_nothing_waits_in_supervisord(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"startProcess": True, "stopProcess": True}
    client.start("a")
    client.stop("a")
    assert fake.calls == [("startProcess", ("a", False)), ("stopProcess", ("a", False))]


def test_failed_start_shows_in_the_state(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"startProcess": fault(50), "getAllProcessInfo": [{**INFO, "statename": "BACKOFF"}]}
    client.start("a")


def test_remove_of_what_runs(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"removeProcessGroup": fault(91)}
    assert client.remove("a") is False


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("", ""),
        ("2026-01-01 WARN exited: a (exit status 3; not expected)\n", "exit status 3"),
        ("x exited: a (exit status 3; not expected)\nx exited: a (terminated by SIGSEGV (core dumped); not expected)\n",
         "terminated by SIGSEGV (core dumped)"),
        ("x exited: ab (exit status 3; not expected)\nx exited: b (exit status 4; not expected)\n", ""),
    ],
)  # fmt: skip
def test_last_exit(client: Supervisor, fake: FakeSupervisord, log: str, expected: str) -> None:
    fake.answers = {"readLog": log}
    assert client.last_exit("a") == expected


def test_last_exit_without_a_log(client: Supervisor, fake: FakeSupervisord) -> None:
    fake.answers = {"readLog": fault(20, "NO_FILE")}
    assert client.last_exit("a") == ""


def test_supervisord_that_dies(client: Supervisor, fake: FakeSupervisord, tmp_path: Path) -> None:
    fake.answers = {"getPID": 1}
    assert client.answers()
    (tmp_path / "s.sock").unlink()
    client._rpc = Supervisor(str(tmp_path / "s.sock"))._rpc
    with pytest.raises(SupervisorError, match="does not answer"):
        client.processes()
