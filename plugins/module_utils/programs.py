# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs of a mesh as supervisord reads them: text out of data, and what a new text means for what runs now.

A *section* is the text of one program, from ``[program:name]`` up to the next one. Two sections with the same
``definition()`` make the same process; the rest of a section are notes to ourselves (how to drain, when it is ready)
that supervisord ignores and that outlive the program's entry in the inventory.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Sections = dict[str, str]
"""Program name to section, in the order of the file."""

PREFIX = ("setpriv", "--pdeathsig", "KILL", "--")
"""Before every command: the kernel kills the process when supervisord dies, even by SIGKILL. Without it the orphans
keep their ports, and the supervisord started next can start nothing."""

HEADER = "; Written by sidecar.mesh; the next run overwrites what is changed here.\n"
NOTES = ";mesh "
LOG_BYTES = "10MB"
LOG_BACKUPS = 2

# Expands to nothing. Keeps apart what supervisord's parser must not see together: blanks and ; or # (a comment),
# a line's end and blanks (stripped), % and (here)s (replaced before anything is unescaped).
_NOTHING = "%(program_name).0s"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f]")
_SECTION = re.compile(r"^\[program:([^\]\n]+)\]\n(?:(?!\[).*(?:\n|\Z))*", re.MULTILINE)
_ENVIRONMENT_VALUE = re.compile(r"^(  [A-Za-z_][A-Za-z0-9_]*=)(.*(?:\n    .*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """One process of the mesh. ``ready`` is ``{http: url}`` or ``{tcp: address:port}``; ``drain`` is
    ``{admin: address:port, seconds: float}``."""

    name: str
    command: list[str]
    environment: dict[str, str]
    directory: str
    log: str
    stop_seconds: int = 10
    ready: dict[str, str] | None = None
    drain: dict[str, Any] | None = None
    priority: int = 999
    first: bool = False


@dataclass(frozen=True)
class Plan:
    """What a list of programs means for what runs now: names, in the order of the list."""

    new: list[str]
    idle: list[str]
    """Known to supervisord, but not running: stopped, or given up."""
    starting: list[str]
    """On the way by themselves, for example started again by supervisord after a crash."""
    pending_restart: list[str]
    pending_stop: list[str]


def problems(programs: Iterable[Program]) -> Iterator[str]:
    """One line for everything that cannot be written into supervisord's file."""
    seen: set[str] = set()
    for index, program in enumerate(programs):
        path = f"programs[{index}]"
        yield from _name_problems(path, program.name, seen)
        if not program.command:
            yield f"{path}.command: is empty; name the binary and its arguments"
        for key, texts in {
            "command": program.command,
            "directory": [program.directory],
            "log": [program.log],
        }.items():
            if any(map(_CONTROL.search, texts)):
                yield f"{path}.{key}: control characters cannot be written into supervisord's file"
        for variable, value in program.environment.items():
            yield from _variable_problems(f"{path}.environment.{variable}", variable, value)


def _name_problems(path: str, name: str, seen: set[str]) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield f"{path}.name: {name!r} is no program name; letters, digits, '-', '_' and '.' are allowed"
    if name in seen:
        yield f"{path}.name: {name!r} is there twice; names are unique"
    seen.add(name)


def _variable_problems(path: str, variable: str, value: str) -> Iterator[str]:
    """Supervisord knows no escape inside quotes, and strips quotes of both kinds from a value's ends."""
    if not _VARIABLE.fullmatch(variable):
        yield f"{path}: {variable!r} is no name of an environment variable; letters, digits and '_' are allowed"
    if _CONTROL.search(value):
        yield f"{path}: control characters other than tab and newline cannot be written into supervisord's file"
    if '"' in value and "'" in value:
        yield f"{path}: supervisord cannot hold a value with both kinds of quotes; pass a file's path instead"
    elif value.strip("'\"") != value:
        yield f"{path}: supervisord cannot hold a value that begins or ends with a quote; pass a file's path instead"


def render(programs: Iterable[Program]) -> Sections:
    """The programs' sections, sorted by name so that the same programs make the same bytes."""
    return {program.name: _section(program) for program in sorted(programs, key=lambda program: program.name)}


def join(sections: Sections) -> str:
    """The file's whole text."""
    return HEADER + "".join(f"\n{section}" for section in sections.values())


def split(text: str) -> Sections:
    """The sections in a file's text. What a program's value holds is indented, so it is never taken for a header."""
    return {match[1]: match[0].rstrip("\n") + "\n" for match in _SECTION.finditer(text)}


def definition(section: str) -> str:
    """The part of a section that makes the process."""
    return "".join(line for line in section.splitlines(keepends=True) if not line.startswith(NOTES))


def notes(section: str) -> dict[str, Any]:
    """``{ready, drain}`` of a section; empty when it has none, or was not written by us."""
    lines = [line[len(NOTES) :] for line in section.splitlines() if line.startswith(NOTES)]
    try:
        found = json.loads(lines[0]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def number(section: str, option: str, default: int) -> int:
    """A numeric option of a section."""
    match = re.search(rf"^{option}=(\d+)$", section, re.MULTILINE)
    return int(match[1]) if match else default


def masked(text: str) -> str:
    """The text with every environment value as a hash: a change shows, a secret does not."""
    return _ENVIRONMENT_VALUE.sub(lambda match: match[1] + _hash(match[2].rstrip(",")), text)


def running_sections(written: Sections, noted: Sections, active: Iterable[str], changed: Collection[str]) -> Sections:
    """The sections the active programs were started with: ``written`` now, or ``noted`` when they were started where
    the file has ``changed`` since; empty when nobody knows."""
    return {
        name: written[name] if name in written and name not in changed else noted.get(name, "")
        for name in sorted(active)
    }


def plan(wanted: Sections, running: Sections, states: Mapping[str, str], foreign: Collection[str]) -> Plan:
    """What to do.

    ``wanted``: sections of the list; ``running``: running_sections(); ``states``: supervisord's state of each active
    program; ``foreign``: programs defined in other files, which are nobody's business here.
    """
    changed = {name for name in wanted if name in states and definition(wanted[name]) != definition(running[name])}
    idle = {
        name
        for name, state in states.items()
        if state not in ("RUNNING", "STARTING", "BACKOFF") or (state == "BACKOFF" and name in changed)
    }
    return Plan(
        new=[name for name in wanted if name not in states],
        idle=[name for name in wanted if name in idle],
        starting=[name for name in wanted if states.get(name) in ("STARTING", "BACKOFF") and name not in changed],
        pending_restart=[name for name in wanted if name in changed - idle],
        pending_stop=[name for name in states if name not in wanted and name not in foreign],
    )


def _section(program: Program) -> str:
    extra = {key: value for key, value in (("drain", program.drain), ("ready", program.ready)) if value}
    lines = [
        f"[program:{program.name}]",
        *([NOTES + json.dumps(extra, sort_keys=True)] if extra else []),
        f"command={_escape(shlex.join([*PREFIX, *program.command]))}",
        f"directory={_escape(program.directory)}",
        *_environment(program.environment),
        f"priority={program.priority}",
        "autostart=true",
        "autorestart=true",
        "startsecs=1",
        "startretries=3",
        "stopsignal=TERM",
        f"stopwaitsecs={program.stop_seconds}",
        "stopasgroup=true",
        "killasgroup=true",
        "redirect_stderr=true",
        # Supervisord expands this option twice.
        f"stdout_logfile={_escape(_escape(program.log))}",
        f"stdout_logfile_maxbytes={LOG_BYTES}",
        f"stdout_logfile_backups={LOG_BACKUPS}",
    ]
    return "\n".join(lines) + "\n"


def _environment(environment: Mapping[str, str]) -> list[str]:
    if not environment:
        return []
    values = [f"  {name}={_quoted(environment[name])}" for name in sorted(environment)]
    return ["environment=", *(f"{value}," for value in values[:-1]), values[-1]]


def _quoted(value: str) -> str:
    quote = "'" if '"' in value else '"'
    return f"{quote}{_escape(value)}{quote}"


def _escape(text: str) -> str:
    """Text as the value of an option, on continuation lines where it has several lines."""
    text = text.replace("%", "%%").replace("%(here)s", f"%{_NOTHING}(here)s")
    text = re.sub(r"(^|(?<=\s))(?=[;#])", _NOTHING, text, flags=re.MULTILINE)
    first, *others = text.split("\n")
    return "\n    ".join(_guard(line, others) for line in (first, *others))


def _guard(line: str, multiline: list[str]) -> str:
    stripped = line.strip() == line and (line or not multiline)
    return line if stripped else f"{_NOTHING}{line}{_NOTHING}"


def _hash(value: str) -> str:
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()[:12]}"
