"""The text of supervisord's programs file, read back by supervisor's own parser, and the plan made from it."""

from __future__ import annotations

import os
import random
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import programs
from ansible_collections.sidecar.mesh.plugins.module_utils.programs import Plan, Program
from supervisor.options import ServerOptions

NASTY = [
    "",
    " leading and trailing ",
    "100% %s %% %(here)s %(ENV_HOME)s %(program_name)s",
    "%%(here)s",
    "%",
    "a;b ;c #d",
    "# not a comment",
    ";neither",
    "it's",
    'say "hi" to',
    '{"list": [1, "two"], "empty": {}}',
    "a=1,B=2",
    "first\nsecond",
    "\nin between\n",
    "a\n\n  indented ;x \n#hash\n[program:evil]\ncommand=evil\n",
    "\ttab",
    "\u00a0no-break\u2028line\x85 ümläut 😀",
    "back\\slash\\",
    "$HOME `id` $(id)",
    "[section]",
    "key: value",
]


def program(name: str = "service-a-1", **changes: Any) -> Program:
    defaults: dict[str, Any] = {"command": ["run"], "environment": {}, "directory": "/srv", "log": "/var/log/a.log"}
    return Program(name=name, **defaults | changes)


def parsed(folder: Path, *wanted: Program) -> dict[str, Any]:
    """The programs as supervisord has them."""
    (folder / "programs.conf").write_text(programs.join(programs.render(wanted)), encoding="utf-8")
    (folder / "supervisord.conf").write_text("[supervisord]\n[include]\nfiles=programs.conf\n")
    options = ServerOptions()
    options.realize(["-c", str(folder / "supervisord.conf")])
    return {group.name: group.process_configs[0] for group in options.process_group_configs}


def assert_survives(folder: Path, wanted: Program) -> None:
    assert list(programs.problems([wanted])) == []
    found = parsed(folder, wanted)[wanted.name]
    assert shlex.split(found.command) == [*programs.PREFIX, *wanted.command]
    assert {name: found.environment[name] for name in wanted.environment} == wanted.environment
    assert (found.directory, found.stdout_logfile) == (wanted.directory, wanted.log)
    rendered = programs.render([wanted])
    assert programs.split(programs.join(rendered)) == rendered


def test_nasty_values_survive(tmp_path: Path) -> None:
    environment = {f"V{index}": value for index, value in enumerate(NASTY)}
    folder = tmp_path / "50% ;x #y"
    folder.mkdir()
    assert_survives(
        tmp_path,
        program(
            command=["/opt/my app/run", *NASTY, "'\"both\"'"],
            environment=environment,
            directory="/srv/50% ;x #y/%(here)s ",
            log=f"{folder}/%(here)s.log",
        ),
    )


@pytest.mark.parametrize("seed", range(20))
def test_random_values_survive(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    pieces = [*" \t\n%;#()\\,=[]:$a1é\x85\u2028'", "%(here)s", " ;", "%(program_name).0s", "\n "]

    def text() -> str:
        return "".join(dice.choice(pieces) for _round in range(dice.randrange(12)))

    environment = {f"V{index}": text().strip("'") for index in range(5)}
    assert_survives(tmp_path, program(command=["run", text(), text()], environment=environment))


def test_settings_of_a_program(tmp_path: Path) -> None:
    found = parsed(tmp_path, program(stop_seconds=7, priority=30))["service-a-1"]
    assert found.autostart is True
    assert found.autorestart.__name__ == "RestartUnconditionally"
    assert (found.startsecs, found.startretries, found.stopwaitsecs, found.priority) == (1, 3, 7, 30)
    assert (found.stopasgroup, found.killasgroup, found.redirect_stderr) == (True, True, True)
    assert (found.stdout_logfile_maxbytes, found.stdout_logfile_backups) == (10 * 1024 * 1024, 2)


def test_same_programs_same_bytes_in_any_order() -> None:
    one = program("a", environment={"X": "1", "Y": "2"}, ready={"http": "http://x/"}, drain={"admin": "x:1"})
    other = program("a", environment={"Y": "2", "X": "1"}, drain={"admin": "x:1"}, ready={"http": "http://x/"})
    b = program("b")
    assert programs.join(programs.render([one, b])) == programs.join(programs.render([b, other]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a b"}, "programs[1].name: 'a b' is no program name; letters, digits, '-', '_' and '.' are allowed"),
        ({"name": "a:b"}, "programs[1].name: 'a:b' is no program name; letters, digits, '-', '_' and '.' are allowed"),
        ({"name": "taken"}, "programs[1].name: 'taken' is there twice; names are unique"),
        ({"command": []}, "programs[1].command: is empty; name the binary and its arguments"),
        (
            {"command": ["run", "a\rb"]},
            "programs[1].command: control characters cannot be written into supervisord's file",
        ),
        ({"directory": "/a\0b"}, "programs[1].directory: control characters cannot be written into supervisord's file"),
        ({"log": "/a\rb"}, "programs[1].log: control characters cannot be written into supervisord's file"),
        (
            {"environment": {"A-B": "x"}},
            (
                "programs[1].environment.A-B: 'A-B' is no name of an environment variable; letters, digits and '_' are"
                " allowed"
            ),
        ),
        (
            {"environment": {"A": "x\ry"}},
            (
                "programs[1].environment.A: control characters other than tab and newline cannot be written into"
                " supervisord's file"
            ),
        ),
        (
            {"environment": {"A": 'it\'s "both" of them'}},
            (
                "programs[1].environment.A: supervisord cannot hold a value with both kinds of quotes; pass a file's"
                " path instead"
            ),
        ),
        (
            {"environment": {"A": '"quoted"'}},
            (
                "programs[1].environment.A: supervisord cannot hold a value that begins or ends with a quote; pass a"
                " file's path instead"
            ),
        ),
    ],
)
def test_problems(changes: dict[str, Any], message: str) -> None:
    assert list(programs.problems([program("taken"), program(**changes)])) == [message]


def test_every_problem_is_reported() -> None:
    bad = program("a b", command=[], environment={"A-B": "x", "C": "'"})
    assert len(list(programs.problems([bad, bad]))) == 9


def test_what_is_refused_would_not_survive(tmp_path: Path) -> None:
    """Otherwise the refusal would be for nothing."""
    for value in ('"quoted"', 'it\'s "both" of them', "x\ry"):
        refused = program(environment={"A": value})
        try:
            found = parsed(tmp_path, refused)["service-a-1"].environment["A"]
        except (SystemExit, KeyError):
            continue
        assert found != value


def test_masked_hides_values_and_shows_that_they_change() -> None:
    def text(secret: str) -> str:
        return programs.masked(
            programs.join(programs.render([program(environment={"A": "x", "KEY": secret, "Z": "y"})]))
        )

    secrets = ["hunter2", "hunter2,", "hunter2\nhunter2\n  hunter2", 'hunter2 "hunter2" ;hunter2', "hunter3"]
    assert not any("hunter" in text(secret) for secret in secrets)
    assert len({text(secret) for secret in secrets}) == len(secrets)
    assert "command=setpriv --pdeathsig KILL -- run\n" in text("hunter2")
    assert "  KEY=sha256:" in text("hunter2")


def test_notes_are_no_part_of_the_definition() -> None:
    drain = {"admin": "127.0.0.1:9901", "seconds": 5.0}
    ready = {"http": "http://127.0.0.1:9901/ready"}
    (plain,) = programs.render([program()]).values()
    (noted,) = programs.render([program(drain=drain, ready=ready)]).values()
    (other,) = programs.render([program(command=["run", "x"])]).values()
    assert programs.definition(noted) == programs.definition(plain) != programs.definition(other)
    assert programs.notes(noted) == {"drain": drain, "ready": ready}
    assert programs.notes(plain) == {}
    assert programs.notes("[program:a]\n;mesh no json\n") == {}


def test_numbers_of_a_section() -> None:
    (section,) = programs.render([program(stop_seconds=7, command=["run", "stopwaitsecs=99"])]).values()
    assert programs.number(section, "stopwaitsecs", 10) == 7
    assert programs.number("", "stopwaitsecs", 10) == 10


def test_running_sections() -> None:
    written = {"same": "new same", "changed": "new changed", "inactive": "new inactive"}
    noted = {"same": "old same", "changed": "old changed", "gone": "old gone"}
    assert programs.running_sections(written, noted, ["same", "changed", "gone", "unknown"], ["changed"]) == {
        "same": "new same",
        "changed": "old changed",
        "gone": "old gone",
        "unknown": "",
    }


@pytest.mark.parametrize(
    ("state", "changed", "expected"),
    [
        (None, False, "new"),
        ("RUNNING", False, None),
        ("RUNNING", True, "pending_restart"),
        ("STARTING", False, "starting"),
        ("STARTING", True, "pending_restart"),
        ("BACKOFF", False, "starting"),
        ("BACKOFF", True, "idle"),
        ("FATAL", False, "idle"),
        ("FATAL", True, "idle"),
        ("EXITED", False, "idle"),
        ("STOPPED", False, "idle"),
        ("STOPPING", True, "idle"),
    ],
)
def test_plan_of_a_wanted_program(state: str | None, changed: bool, expected: str | None) -> None:
    wanted = programs.render([program("a", command=["new" if changed else "old"])])
    running = programs.render([program("a", command=["old"])])
    found = programs.plan(wanted, running, {"a": state} if state else {}, [])
    names: dict[str, list[str]] = {"new": [], "idle": [], "starting": [], "pending_restart": [], "pending_stop": []}
    assert found == Plan(**names | ({expected: ["a"]} if expected else {}))


def test_plan_of_programs_that_are_not_wanted() -> None:
    found = programs.plan({}, {"mine": "", "theirs": ""}, {"mine": "RUNNING", "theirs": "RUNNING"}, ["theirs"])
    assert found.pending_stop == ["mine"]


def test_prefix_is_a_command_of_this_machine() -> None:
    assert os.spawnvp(os.P_WAIT, programs.PREFIX[0], [*programs.PREFIX, "true"]) == 0
