"""Module local_processes with a real supervisord, real processes and real Envoys."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from behaviour.machine import (
    BIN,
    Client,
    Supervisord,
    alive,
    background,
    loopback,
    play,
    start_module,
    started_with,
    wait_until,
)

NOTHING: dict[str, Any] = {
    "changed": False,
    "started": [],
    "restarted": [],
    "stopped": [],
    "undrained": [],
    "pending_restart": [],
    "pending_stop": [],
}


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Supervisord]:
    """A supervisord that has not been started."""
    supervisord = Supervisord(tmp_path)
    yield supervisord
    supervisord.stop()


@pytest.fixture
def mesh(idle: Supervisord) -> Supervisord:
    idle.start()
    return idle


def without_diff(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "diff"}


def files(folder: Path) -> dict[str, bytes]:
    """Content of all that a run could change."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name.startswith("programs.")}


def listening(address: str, port: int, seconds: float = 0) -> list[object]:
    """A command that listens, after a while, until it is told to stop."""
    code = (
        f"import socket, time; time.sleep({seconds}); s = socket.create_server(({address!r}, {port})); time.sleep(3600)"
    )
    return [sys.executable, "-c", code]


# Starting


def test_starts_what_is_new_with_arguments_and_environment_as_they_are(mesh: Supervisord) -> None:
    nasty = ["", "100% %(here)s", "a b ;c #d", "it's", 'say "hi" to', "two\nlines\n ;x\n", "ümläut 😀"]
    code = "import time; time.sleep(3600)"
    program = mesh.program(
        "app",
        sys.executable,
        "-c",
        code,
        *nasty,
        environment={f"V{i}": value for i, value in enumerate(nasty)} | {"N": 1},
    )
    result = mesh.run([program])
    assert without_diff(result) == NOTHING | {"changed": True, "started": ["app"]}
    arguments, environment = started_with(mesh.pids()["app"])
    assert arguments == [sys.executable, "-c", code, *nasty]
    assert environment.items() >= ({f"V{i}": value for i, value in enumerate(nasty)} | {"N": "1"}).items()
    assert Path(f"/proc/{mesh.pids()['app']}/cwd").resolve() == mesh.folder
    assert mesh.programs_file.stat().st_mode & 0o777 == 0o600


def test_second_run_changes_nothing(mesh: Supervisord) -> None:
    programs = [mesh.program("b"), mesh.program("a", environment={"X": "1"}, priority=3)]
    mesh.run(programs)
    pids, before = mesh.pids(), files(mesh.folder)
    for state in ("started", "restarted", "pruned"):
        assert mesh.run(programs[::-1], state) == NOTHING
    assert (mesh.pids(), files(mesh.folder)) == (pids, before)


def test_many_programs_start_together_and_no_change_is_quick(mesh: Supervisord) -> None:
    programs = [mesh.program(f"p{index}") for index in range(30)]
    began = time.monotonic()
    assert len(mesh.run(programs)["started"]) == 30
    assert time.monotonic() - began < 20, "one after the other would take 30 seconds"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert mesh.run(programs) == NOTHING
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1, "most of it is Python's own start"


def test_others_start_once_what_is_first_is_ready(mesh: Supervisord) -> None:
    address, port = loopback(), 8081
    starts = mesh.folder / "starts"
    asks = (
        f"import socket, time; open({str(starts)!r}, 'a').write('one '); "
        f"socket.create_connection(({address!r}, {port})); time.sleep(3600)"
    )
    programs = [
        mesh.program("asks", sys.executable, "-c", asks),
        mesh.program("asked", *listening(address, port, 2), ready={"tcp": f"{address}:{port}"}, first=True),
    ]
    assert mesh.run(programs)["started"] == ["asks", "asked"]
    assert starts.read_text() == "one "
    failed = mesh.program("never", *listening(address, 8082, 3600), ready={"tcp": f"{address}:8082"}, first=True)
    result = mesh.run([*programs, failed, mesh.program("later")], timeout=2)
    assert "1 program did not start; nothing was changed" in result["msg"]
    assert set(mesh.pids()) == {"asks", "asked"}


def test_started_leaves_changed_and_unwanted_programs_alone(mesh: Supervisord) -> None:
    mesh.run([mesh.program("same"), mesh.program("changed"), mesh.program("gone")])
    pids = mesh.pids()
    wanted = [mesh.program("new"), mesh.program("changed", "sleep", "3601"), mesh.program("same")]
    expected = NOTHING | {"changed": True, "started": ["new"], "pending_restart": ["changed"], "pending_stop": ["gone"]}
    assert without_diff(mesh.run(wanted)) == expected
    assert {name: mesh.pids()[name] for name in pids} == pids
    expected |= {"changed": False, "started": []}
    assert mesh.run(wanted) == expected, "the next run still knows what is pending"
    pruned = mesh.run(wanted, "pruned")
    assert pruned == NOTHING | {"changed": True, "stopped": ["gone"], "pending_restart": ["changed"]}
    assert not alive(pids["gone"])
    assert set(mesh.pids()) == {"same", "changed", "new"}


def test_taking_a_change_back_leaves_nothing_to_do(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app")])
    pid = mesh.pids()["app"]
    assert mesh.run([mesh.program("app", "sleep", "3601")])["pending_restart"] == ["app"]
    assert without_diff(mesh.run([mesh.program("app")])) == NOTHING | {"changed": True}
    assert mesh.run([mesh.program("app")], "restarted") == NOTHING
    assert mesh.pids()["app"] == pid


def test_settings_of_ours_alone_restart_nothing(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app")])
    pid = mesh.pids()["app"]
    changed = mesh.program("app", drain={"admin": "127.0.0.1:1", "seconds": 1})
    assert without_diff(mesh.run([changed])) == NOTHING | {"changed": True}
    assert mesh.pids()["app"] == pid


def test_waits_until_programs_are_ready(mesh: Supervisord) -> None:
    address = loopback()
    programs = [
        mesh.program("late", *listening(address, 8080, 2), ready={"tcp": f"{address}:8080"}),
        mesh.program("http", sys.executable, "-m", "http.server", "--bind", address, "8081",
                     ready={"http": f"http://{address}:8081/"}),
    ]  # fmt: skip
    began = time.monotonic()
    assert mesh.run(programs)["started"] == ["late", "http"]
    assert time.monotonic() - began > 2
    Client(address, 8080).connection.connect()


def test_starts_what_stands_still(mesh: Supervisord) -> None:
    programs = [mesh.program("stopped"), mesh.program("runs")]
    mesh.run(programs)
    pids = mesh.pids()
    mesh.rpc().stopProcess("stopped")
    assert mesh.run(programs) == NOTHING | {"changed": True, "started": ["stopped"]}
    assert mesh.pids()["runs"] == pids["runs"]


def test_starts_what_stands_still_by_its_new_definition(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app")])
    mesh.rpc().stopProcess("app")
    assert without_diff(mesh.run([mesh.program("app", "sleep", "3601")])) == NOTHING | {
        "changed": True,
        "started": ["app"],
    }
    assert started_with(mesh.pids()["app"])[0] == ["sleep", "3601"]


def test_program_that_crashed_is_waited_for(mesh: Supervisord) -> None:
    address = loopback()
    app = mesh.program("app", *listening(address, 8080, 1.5), ready={"tcp": f"{address}:8080"})
    mesh.run([app])
    os.kill(mesh.pids()["app"], signal.SIGKILL)
    wait_until(lambda: mesh.pids()["app"], "supervisord starts it again")
    assert mesh.run([app]) == NOTHING
    Client(address, 8080).connection.connect()


def test_programs_of_other_files_are_left_alone(mesh: Supervisord) -> None:
    (mesh.folder / "others.conf").write_text("[program:other]\ncommand=sleep 3600\n")
    mesh.rpc().reloadConfig()
    mesh.rpc().addProcessGroup("other")
    pid = wait_until(lambda: mesh.pids()["other"], "the other program runs")
    assert mesh.run([mesh.program("app")])["pending_stop"] == []
    assert mesh.run([], "pruned")["stopped"] == ["app"]
    assert mesh.pids() == {"other": pid}


# Failing to start


def test_failed_start_says_why_and_leaves_everything_as_it_was(mesh: Supervisord) -> None:
    address = loopback()
    mesh.run([mesh.program("runs"), mesh.program("gone")])
    pids, before = mesh.pids(), files(mesh.folder)
    lines = "; ".join(f"echo line {number}" for number in range(1, 21))
    wanted = [
        mesh.program("runs", "sleep", "3601"),
        mesh.program("good"),
        mesh.program("dies", "sh", "-c", f"{lines}; exit 3"),
        mesh.program("killed", "sh", "-c", "kill -SEGV $$"),
        mesh.program("missing", "/no/such/binary", "--flag", "two words"),
        mesh.program("deaf", ready={"tcp": f"{address}:8080"}),
    ]
    result = mesh.run(wanted)
    folder = mesh.folder
    tail = "\n".join(f"      line {number}" for number in range(6, 21))
    assert result["msg"] == (
        "4 programs did not start; nothing was changed:\n"
        "- dies: FATAL, exit status 3\n"
        f"    command: sh -c '{lines}; exit 3'\n"
        f"    last lines of {folder}/dies.log:\n{tail}\n"
        "- killed: FATAL, terminated by SIGSEGV\n"
        "    command: sh -c 'kill -SEGV $$'\n"
        f"    {folder}/killed.log has no line of this start\n"
        "- missing: FATAL, exit status 127\n"
        "    command: /no/such/binary --flag 'two words'\n"
        f"    last lines of {folder}/missing.log:\n"
        + "      setpriv: failed to execute /no/such/binary: No such file or directory\n"
        * 4
        + f"- deaf: RUNNING, but not ready after 10 s (TCP {address}:8080: [Errno 111] Connection refused)\n"
        "    command: sleep 3600\n"
        f"    {folder}/deaf.log has no line of this start"
    )
    assert result["failed"] is True
    assert {key: result[key] for key in NOTHING} == NOTHING | {"pending_restart": ["runs"], "pending_stop": ["gone"]}
    assert "diff" not in result
    assert (mesh.pids(), files(mesh.folder)) == (pids, before)
    assert without_diff(mesh.run([mesh.program("runs"), mesh.program("gone")])) == NOTHING


def test_failed_first_start_leaves_no_file(mesh: Supervisord) -> None:
    assert mesh.run([mesh.program("dies", "false")])["failed"] is True
    assert not mesh.programs_file.exists()
    assert mesh.pids() == {}


def test_failed_start_shows_only_the_log_of_this_start(mesh: Supervisord) -> None:
    (mesh.folder / "app.log").write_text("of old\n" * 100)
    message = mesh.run([mesh.program("app", "sh", "-c", "echo of now; exit 1")])["msg"]
    assert message.count("of now") == 5  # once in the command
    assert "of old" not in message


def test_failed_start_of_a_new_definition_of_what_stands_still(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app")])
    mesh.rpc().stopProcess("app")
    result = mesh.run([mesh.program("app", "false")])
    assert result["failed"] is True
    assert "- app: FATAL, exit status 1\n    command: false\n" in result["msg"]
    assert without_diff(mesh.run([mesh.program("app")])) == NOTHING, "the old definition is back"


def test_log_folder_that_is_missing(mesh: Supervisord) -> None:
    mesh.run([mesh.program("runs")])
    before = files(mesh.folder)
    result = mesh.run([mesh.program("runs"), mesh.program("app", log=f"{mesh.folder}/missing/app.log")])
    assert result["failed"] is True
    assert "missing/app.log does not exist in section 'program:app'" in result["msg"]
    assert files(mesh.folder) == before
    assert mesh.run([mesh.program("runs")]) == NOTHING


def test_without_supervisord(idle: Supervisord) -> None:
    for state in ("started", "restarted", "pruned"):
        result = idle.run([idle.program("app")], state)
        assert result == NOTHING | {
            "failed": True,
            "msg": f"supervisord does not run: nothing answers at {idle.socket}; start it before its programs",
        }
    assert files(idle.folder) == {}


def test_arguments_that_make_no_sense_are_told_together(idle: Supervisord) -> None:
    bad = idle.program("a b", environment={"FLAG": True, "A-B": "x"})
    assert idle.run([bad, idle.program("c")], "restarted", only=["d"])["msg"].splitlines() == [
        "programs[0].name: 'a b' is no program name; letters, digits, '-', '_' and '.' are allowed",
        "programs[0].environment.A-B: 'A-B' is no name of an environment variable; letters, digits and '_' are allowed",
        "programs[0].environment.FLAG: True is neither text nor a number; quote it as it is meant",
        "only: 'd' is not in programs (known: a b, c)",
    ]
    assert idle.run([idle.program("c")], only=["c"])["msg"] == (
        "only: has a meaning with state=restarted, not with state=started; leave it out"
    )
    both = idle.program("c", ready={"tcp": "x:1", "http": "http://x/"})
    assert idle.run([both])["msg"] == "parameters are mutually exclusive: http|tcp found in programs -> ready"


# Check mode


def test_check_mode_without_supervisord(idle: Supervisord) -> None:
    before = sorted(idle.folder.iterdir())
    result = idle.run([idle.program("a"), idle.program("b")], check=True)
    assert without_diff(result) == NOTHING | {"changed": True, "started": ["a", "b"]}
    assert sorted(idle.folder.iterdir()) == before


def test_check_mode_tells_what_will_happen_and_touches_nothing(mesh: Supervisord) -> None:
    mesh.run([mesh.program(name) for name in ("same", "changed", "gone", "stopped", "stopped-changed")])
    for name in ("stopped", "stopped-changed"):
        mesh.rpc().stopProcess(name)
    pids, before = mesh.pids(), files(mesh.folder)
    wanted = [mesh.program(name) for name in ("same", "new", "stopped")]
    wanted += [mesh.program(name, "sleep", "3601") for name in ("changed", "stopped-changed")]
    for state in ("started", "restarted", "pruned"):
        foretold = mesh.run(wanted, state, check=True)
        assert (mesh.pids(), files(mesh.folder)) == (pids, before)
        assert mesh.run(wanted, state) == foretold
        assert foretold["changed"] is True
        assert mesh.run(wanted, state, check=True)["changed"] is False
        pids, before = mesh.pids(), files(mesh.folder)


def test_check_mode_foretells_each_step_before_any_is_taken(mesh: Supervisord) -> None:
    mesh.run([mesh.program("changed"), mesh.program("gone")])
    wanted = [mesh.program("changed", "sleep", "3601")]
    assert mesh.run(wanted, "restarted", only=["changed"], check=True)["restarted"] == ["changed"]
    assert mesh.run(wanted, "pruned", check=True)["stopped"] == ["gone"]


def test_diff_has_no_secrets(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app", environment={"TOKEN": "hunter2"})])
    result = mesh.run([mesh.program("app", environment={"TOKEN": "hunter3"})], check=True)
    assert "hunter" not in json.dumps(result)
    before, after = (result["diff"][key].splitlines() for key in ("before", "after"))
    assert len(before) == len(after)
    assert [line.split(":")[0] for line in set(before) ^ set(after)] == ["  TOKEN=sha256"] * 2


def test_through_ansible(mesh: Supervisord) -> None:
    """Packed as Ansible packs it, in a play with --check --diff."""
    arguments = mesh.arguments([mesh.program("app", environment={"TOKEN": "hunter2"})], "started")
    for options in (["--check", "--diff"], []):
        output = play(mesh.folder, "local_processes", arguments, *options)
        assert "changed=1 " in output, output
        assert ("+  TOKEN=sha256:" in output) is bool(options)
        assert ("app" in mesh.pids()) is not bool(options)


# Restarting


def test_restarts_only_what_is_named_and_changed(mesh: Supervisord) -> None:
    mesh.run([mesh.program(name) for name in ("a", "b", "same")])
    pids = mesh.pids()
    wanted = [*(mesh.program(name, environment={"NEW": "1"}) for name in ("a", "b")), mesh.program("same")]
    mesh.run(wanted)
    result = mesh.run(wanted, "restarted", only=["b", "same"])
    assert result == NOTHING | {"changed": True, "restarted": ["b"], "pending_restart": ["a"]}
    assert {name for name, pid in mesh.pids().items() if pid != pids[name]} == {"b"}
    assert started_with(mesh.pids()["b"])[1]["NEW"] == "1"
    assert not alive(pids["b"])
    assert mesh.run(wanted, "restarted") == NOTHING | {"changed": True, "restarted": ["a"]}
    assert mesh.run(wanted, "restarted") == NOTHING


def test_failed_restart_puts_the_old_definition_back(mesh: Supervisord) -> None:
    mesh.run([mesh.program("a", environment={"OLD": "1"}), mesh.program("b")])
    wanted = [mesh.program("a", "sh", "-c", "echo oops; exit 4"), mesh.program("b", "sleep", "3601")]
    for _round in range(2):
        mesh.run(wanted)  # the second time, only the file's neighbour knows the old definition
    result = mesh.run(wanted, "restarted")
    assert result["msg"] == (
        "1 program did not start with a new definition:\n"
        "- a: BACKOFF, exit status 4\n"
        "    command: sh -c 'echo oops; exit 4'\n"
        f"    last lines of {mesh.folder}/a.log:\n"
        "      oops\n"
        "Running again with the old definition: a"
    )
    assert {key: result[key] for key in NOTHING} == NOTHING | {
        "changed": True,
        "restarted": ["b"],
        "pending_restart": ["a"],
    }
    assert started_with(mesh.pids()["a"])[1]["OLD"] == "1"
    assert started_with(mesh.pids()["b"])[0] == ["sleep", "3601"]
    assert mesh.run(wanted)["pending_restart"] == ["a"], "the next run tries again"
    fixed = [mesh.program("a", "sleep", "3602"), mesh.program("b", "sleep", "3601")]
    mesh.run(fixed)
    assert mesh.run(fixed, "restarted")["restarted"] == ["a"]


def test_failed_restart_when_the_old_definition_fails_too(mesh: Supervisord) -> None:
    flag = mesh.folder / "flag"
    flag.touch()
    mesh.run([mesh.program("a", "sh", "-c", f"test -e {flag} && exec sleep 3600")])
    flag.unlink()
    wanted = [mesh.program("a", "false")]
    mesh.run(wanted)
    message = mesh.run(wanted, "restarted")["msg"]
    assert "\nThe old definition does not start any more either:\n- a: FATAL, exit status 1\n" in message
    assert "Running again" not in message


# Stopping


def test_program_that_ignores_sigterm_is_killed_after_its_time(mesh: Supervisord) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    mesh.run([mesh.program("app", sys.executable, "-c", code, stop_seconds=1)])
    pid = mesh.pids()["app"]
    began = time.monotonic()
    assert mesh.run([], "pruned")["stopped"] == ["app"]
    assert 1 <= time.monotonic() - began < 9
    assert not alive(pid)


def test_stops_by_priority_and_children_too(mesh: Supervisord) -> None:
    order = mesh.folder / "order"
    code = (
        "import signal, sys, time, os\n"
        "def stop(*_):\n"
        "    time.sleep(0.3)\n"
        f"    open({str(order)!r}, 'a').write(sys.argv[1] + ' ')\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "time.sleep(3600)\n"
    )
    programs = [
        mesh.program(name, sys.executable, "-c", code, name, priority=priority)
        for name, priority in (("sidecar", 20), ("app", 30), ("dns", 10))
    ]
    wrapper = mesh.program("wrapper", "sh", "-c", "sleep 3600 & echo $!; wait", priority=30)
    mesh.run([*programs, wrapper])
    child = int(wait_until((mesh.folder / "wrapper.log").read_text, "the wrapper's child"))
    assert mesh.run([], "pruned")["stopped"] == ["app", "wrapper", "sidecar", "dns"]
    assert order.read_text() == "app sidecar dns "
    assert not alive(child)


# Starting and stopping supervisord itself


def daemon(mesh: Supervisord) -> list[str]:
    return [str(BIN / "supervisord"), "--configuration", str(mesh.folder / "supervisord.conf")]


def test_starts_supervisord_where_none_runs_and_shuts_it_down(idle: Supervisord) -> None:
    programs = [idle.program(name) for name in ("a", "b")]
    expected = NOTHING | {"changed": True, "started": ["a", "b"]}
    assert without_diff(idle.run(programs, supervisord=daemon(idle), check=True)) == expected
    assert not idle.socket.exists()
    assert without_diff(idle.run(programs, supervisord=daemon(idle))) == expected
    supervisord, *pids = [int((idle.folder / "supervisord.pid").read_text()), *idle.pids().values()]
    try:
        assert idle.run(programs, supervisord=daemon(idle)) == NOTHING
        stopped = NOTHING | {"changed": True, "stopped": ["a", "b"]}
        assert idle.run([], "shutdown", check=True) == stopped
        assert all(map(alive, [supervisord, *pids]))
        assert idle.run([], "shutdown") == stopped
        wait_until(lambda: not any(map(alive, [supervisord, *pids])), "all are gone")
        assert idle.run([], "shutdown") == NOTHING
    finally:
        if alive(supervisord):
            os.kill(supervisord, signal.SIGKILL)


def test_supervisord_started_again_has_all_programs(mesh: Supervisord) -> None:
    """After a reboot, say: it has them from the file, and they are not started twice."""
    programs = [mesh.program("a"), mesh.program("b")]
    mesh.run(programs)
    mesh.kill()
    try:
        result = mesh.run(programs, supervisord=daemon(mesh))
        assert result == NOTHING | {"changed": True, "started": ["a", "b"]}
        assert all(map(alive, mesh.pids().values()))
    finally:
        mesh.run([], "shutdown")


def test_supervisord_that_does_not_start(idle: Supervisord) -> None:
    (idle.folder / "supervisord.conf").write_text("[supervisord]\nlogfile=/no/such/folder/log\n")
    result = idle.run([idle.program("a")], supervisord=daemon(idle))
    assert result["msg"].startswith("supervisord does not start: Error: The directory named as part of the path")
    assert files(idle.folder) == {}


def test_shutdown_of_many_does_not_take_long(mesh: Supervisord) -> None:
    """Supervisord by itself stops one after the other."""
    slow = 'trap "sleep 1; exit" TERM; while :; do sleep 0.1; done'
    mesh.run([mesh.program(f"p{index}", "sh", "-c", slow) for index in range(12)])
    began = time.monotonic()
    assert len(mesh.run([], "shutdown")["stopped"]) == 12
    assert time.monotonic() - began < 8


# What survives what


def test_killed_process_comes_back_by_itself(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app"), mesh.program("ends", "sleep", "2")])
    pid = mesh.pids()["app"]
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: mesh.pids()["app"] not in (0, pid), "it runs again")
    log = (mesh.folder / "supervisord.log").read_text
    assert wait_until(lambda: log().count("spawned: 'ends'") >= 2, "one that ends with status 0 runs again, too")


def test_killed_supervisord_leaves_no_process_and_the_next_one_has_all(mesh: Supervisord) -> None:
    programs = [mesh.program("a"), mesh.program("b")]
    mesh.run(programs)
    pids = mesh.pids()
    mesh.kill()
    wait_until(lambda: not any(map(alive, pids.values())), "its processes are gone")
    mesh.start()
    assert mesh.run(programs) == NOTHING
    assert all(map(alive, mesh.pids().values()))


def test_supervisord_restarted_in_between_knows_the_old_definition(mesh: Supervisord) -> None:
    """What runs was started by the file, not by us: it is the old definition if the next change fails."""
    mesh.run([mesh.program("app", environment={"V": "1"})])
    mesh.run([mesh.program("app", environment={"V": "2"})])
    mesh.kill()
    mesh.start()
    wanted = [mesh.program("app", "false")]
    assert mesh.run(wanted)["pending_restart"] == ["app"]
    assert "Running again with the old definition: app" in mesh.run(wanted, "restarted")["msg"]
    assert started_with(mesh.pids()["app"])[1]["V"] == "2"


def interrupt(mesh: Supervisord, programs: list[dict[str, Any]], state: str, when: Callable[[], Any]) -> None:
    """A run that is killed when a condition holds."""
    process = start_module("local_processes", mesh.arguments(programs, state))
    wait_until(when, "the moment to interrupt")
    process.kill()
    process.communicate()


def test_interrupted_start_is_finished_by_the_next_run(mesh: Supervisord) -> None:
    mesh.run([mesh.program("changed"), mesh.program("gone")])
    wanted = [mesh.program("changed", "sleep", "3601"), mesh.program("new", ready={"tcp": f"{loopback()}:1"})]
    interrupt(mesh, wanted, "started", lambda: "new" in mesh.pids())
    del wanted[1]["ready"]
    expected = NOTHING | {"changed": True, "pending_restart": ["changed"], "pending_stop": ["gone"]}
    assert without_diff(mesh.run(wanted)) == expected
    assert mesh.run(wanted, "restarted")["restarted"] == ["changed"]
    assert mesh.run(wanted, "pruned")["stopped"] == ["gone"]
    assert mesh.run(wanted) == NOTHING


def test_interrupted_restart_is_finished_by_the_next_run(mesh: Supervisord) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    mesh.run([mesh.program("app", sys.executable, "-c", code, stop_seconds=2)])
    wanted = [mesh.program("app")]
    mesh.run(wanted)
    interrupt(mesh, wanted, "restarted", lambda: mesh.rpc().getProcessInfo("app")["statename"] == "STOPPING")
    assert mesh.run(wanted) == NOTHING | {"changed": True, "started": ["app"]}
    assert started_with(mesh.pids()["app"])[0] == ["sleep", "3600"]


def test_interrupted_run_does_not_forget_what_supervisord_started(mesh: Supervisord) -> None:
    mesh.run([mesh.program("app", environment={"V": "1"})])
    mesh.run([mesh.program("app", environment={"V": "2"})])
    mesh.kill()
    mesh.start()
    wanted = [mesh.program("app", "false"), mesh.program("new", ready={"tcp": f"{loopback()}:1"})]
    interrupt(mesh, wanted, "started", lambda: "new" in mesh.pids())
    assert "Running again with the old definition: app" in mesh.run(wanted[:1], "restarted")["msg"]
    assert started_with(mesh.pids()["app"])[1]["V"] == "2"


def test_program_that_is_being_stopped_is_started_again(mesh: Supervisord) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"
    programs = [mesh.program("app", sys.executable, "-c", code, stop_seconds=2)]
    mesh.run(programs)
    mesh.rpc().stopProcess("app", False)
    assert mesh.run(programs) == NOTHING | {"changed": True, "started": ["app"]}
    assert alive(mesh.pids()["app"])


def test_damaged_file_is_written_anew_and_restarts_nothing(mesh: Supervisord) -> None:
    programs = [mesh.program("app")]
    mesh.run(programs)
    pids = mesh.pids()
    edited = mesh.programs_file.read_text().replace("3600", "1") + "[nonsense\n"
    for damage in (
        lambda: mesh.programs_file.write_text("[program:app\nnonsense"),
        lambda: mesh.programs_file.write_text(edited),
        mesh.programs_file.unlink,
    ):
        damage()
        assert without_diff(mesh.run(programs)) == NOTHING | {"changed": True}
        assert mesh.pids() == pids


# Draining Envoys

PROXY = {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": "tcp"}
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}


class Envoy:
    """An Envoy as a program: /slow asks an application, anything else is answered with the Envoy's name."""

    def __init__(self, mesh: Supervisord, name: str, application: str) -> None:
        self.address = loopback()
        self.admin = f"{self.address}:9901"
        config = mesh.folder / f"{name}.yaml"
        config.write_text(yaml.safe_dump(self._bootstrap(name, application)))
        self.program = mesh.program(
            name, BIN / "envoy", "-c", config, "--disable-hot-restart", "--concurrency", "1", "-l", "warning",
            ready={"http": f"http://{self.admin}/ready"}, drain={"admin": self.admin, "seconds": 10},
        )  # fmt: skip

    def ready(self) -> tuple[int, str]:
        answer = Client(self.address, 9901).get("/ready")
        return answer.status, answer.body.strip()

    def _bootstrap(self, name: str, application: str) -> dict[str, Any]:
        routes = [
            {"match": {"prefix": "/slow"}, "route": {"cluster": "application"}},
            {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": name}}},
        ]
        manager = {
            "@type": MANAGER,
            "stat_prefix": "ingress",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "router", "typed_config": ROUTER}],
        }
        return {
            "admin": {"address": self._socket(self.address, 9901)},
            "static_resources": {
                "listeners": [
                    self._listener(8080, "envoy.filters.network.http_connection_manager", manager),
                    self._listener(8081, "envoy.filters.network.tcp_proxy", PROXY | {"cluster": "application"}),
                ],
                "clusters": [
                    {
                        "name": "application",
                        "load_assignment": {
                            "cluster_name": "application",
                            "endpoints": [
                                {"lb_endpoints": [{"endpoint": {"address": self._socket(application, 8080)}}]}
                            ],
                        },
                    }
                ],
            },
        }

    def _listener(self, port: int, kind: str, config: dict[str, Any]) -> dict[str, Any]:
        filters = [{"name": kind, "typed_config": config}]
        address = self._socket(self.address, port)
        return {"address": address, "enable_reuse_port": False, "filter_chains": [{"filters": filters}]}

    def _socket(self, address: str, port: int) -> dict[str, Any]:
        return {"socket_address": {"address": address, "port_value": port}}


APPLICATION = """\
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        time.sleep(2)
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"slow")
http.server.ThreadingHTTPServer((sys.argv[1], 8080), Handler).serve_forever()
"""


@pytest.fixture
def application(mesh: Supervisord) -> dict[str, Any]:
    address = loopback()
    return mesh.program("app", sys.executable, "-c", APPLICATION, address, ready={"tcp": f"{address}:8080"}) | {
        "address": address
    }


@pytest.fixture
def envoys(mesh: Supervisord, application: dict[str, Any]) -> list[Envoy]:
    return [
        Envoy(mesh, name, application.pop("address") if name == "two" else application["address"])
        for name in ("one", "two")
    ]


def test_no_request_fails_while_an_envoy_is_retired(
    mesh: Supervisord, application: dict[str, Any], envoys: list[Envoy]
) -> None:
    """Clients keep their connection until they are told to leave, and one of them waits for a slow answer."""
    leaving, staying = envoys
    mesh.run([application, leaving.program, staying.program])
    answers: list[str] = []
    failures: list[str] = []
    done = threading.Event()

    def client() -> None:
        connection = Client(leaving.address, 8080)
        while not done.is_set():
            try:
                answer = connection.get()
                answers.append(answer.body)
                if answer.closes:
                    connection = Client(staying.address, 8080)
            except OSError as error:
                failures.append(repr(error))
                return
            time.sleep(0.01)

    def slow() -> None:
        try:
            answers.append(Client(leaving.address, 8080).get("/slow").body)
        except OSError as error:
            failures.append(repr(error))

    with background(client), background(client), background(slow):
        time.sleep(0.5)
        pid = mesh.pids()["one"]
        began = time.monotonic()
        result = mesh.run([application, staying.program], "pruned")
        took = time.monotonic() - began
        time.sleep(0.3)
        done.set()
    assert result["stopped"] == ["one"]
    assert not alive(pid)
    assert failures == []
    assert {"one", "two", "slow"} == set(answers)
    assert took < 9, "it does not wait longer than it must"


def test_idle_connection_does_not_hold_a_drain_up(
    mesh: Supervisord, application: dict[str, Any], envoys: list[Envoy]
) -> None:
    mesh.run([application, envoys[0].program])
    idle = Client(envoys[0].address, 8080)
    idle.get()
    began = time.monotonic()
    mesh.run([application], "pruned")
    assert 0.5 < time.monotonic() - began < 8


def test_tcp_connection_holds_a_drain_up_until_its_time_is_over(
    mesh: Supervisord, application: dict[str, Any], envoys: list[Envoy]
) -> None:
    envoy = envoys[0]
    envoy.program["drain"]["seconds"] = 3
    mesh.run([application, envoy.program])
    client = Client(envoy.address, 8081)
    client.connection.connect()
    began = time.monotonic()
    mesh.run([application], "pruned")
    assert 3 <= time.monotonic() - began < 9


def test_restart_drains_too(mesh: Supervisord, application: dict[str, Any], envoys: list[Envoy]) -> None:
    envoy = envoys[0]
    mesh.run([application, envoy.program])
    changed = envoy.program | {"environment": {"CONFIG": "2"}, "drain": None}
    mesh.run([application, changed])
    answers: list[str] = []
    with background(lambda: answers.append(Client(envoy.address, 8080).get("/slow").body)):
        time.sleep(0.3)
        assert mesh.run([application, changed], "restarted")["restarted"] == ["one"]
    assert answers == ["slow"]
    assert envoy.ready() == (200, "LIVE")


def test_envoy_drained_by_an_interrupted_run_serves_again(
    mesh: Supervisord, application: dict[str, Any], envoys: list[Envoy]
) -> None:
    one, two = envoys
    programs = [application, one.program, two.program]
    mesh.run(programs)
    Client(one.address, 9901).get("/healthcheck/fail", "POST")
    assert one.ready() == (503, "DRAINING")
    expected = NOTHING | {"changed": True, "undrained": ["one"]}
    assert mesh.run(programs, check=True) == expected
    assert one.ready() == (503, "DRAINING")
    assert mesh.run(programs) == expected
    assert one.ready() == (200, "LIVE")
    assert mesh.run(programs) == NOTHING
