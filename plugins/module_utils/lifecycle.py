# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts, restarts and retires the processes of one mesh through its supervisord.

Two files carry what must survive an interrupted run: the programs file, which supervisord reads, holds what is wanted;
its neighbour ``.running`` holds the sections the active programs were started with, so that a program's old definition
can be put back, and a program that left the inventory still be drained.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import probes, programs
from ansible_collections.sidecar.mesh.plugins.module_utils.programs import Plan, Program, Sections
from ansible_collections.sidecar.mesh.plugins.module_utils.supervisor import (
    Process,
    Supervisor,
    SupervisorError,
    UnreadableConfigError,
)

POLL_SECONDS = 0.05
STOP_MARGIN_SECONDS = 10.0
"""How much longer than its stop_seconds a program may take until supervisord has killed and reaped it."""
GIVEN_UP = frozenset({"FATAL", "UNKNOWN", "STOPPED"})
"""States that supervisord leaves a program in. From BACKOFF it tries again, which helps a program that needs another
one; where an old definition is waiting to be put back, every second counts."""
LOG_LINES = 15
_LOG_BYTES = 16 * 1024


class LifecycleError(Exception):
    """A step failed; its text is for the user. What was changed is in Lifecycle.report."""


@dataclass
class Report:
    """What a step did, or would do in check mode: names of programs."""

    started: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    undrained: list[str] = field(default_factory=list)
    pending_restart: list[str] = field(default_factory=list)
    pending_stop: list[str] = field(default_factory=list)
    before: str = ""
    """Text of the programs file."""
    after: str = ""

    @property
    def changed(self) -> bool:
        return self.before != self.after or any((self.started, self.restarted, self.stopped, self.undrained))


class Lifecycle:
    """One call's view of a mesh: what is wanted, what runs, and the difference. Reads only; the steps change."""

    def __init__(self, socket: str, programs_file: Path, wanted: Iterable[Program], timeout: float) -> None:
        """``timeout``: seconds until a started program must be ready. Raises SupervisorError."""
        self.programs = {program.name: program for program in wanted}
        self.timeout = timeout
        self._file = _TextFile(programs_file)
        self._record = _TextFile(programs_file.with_name(f"{programs_file.name}.running"))
        self._supervisor = Supervisor(socket)
        self._sections = programs.render(self.programs.values())
        self.runs = self._supervisor.answers()
        self._processes: dict[str, Process] = self._supervisor.processes() if self.runs else {}
        self._running, foreign = self._look()
        states = {name: process.state for name, process in self._processes.items()}
        self.plan = self._in_order(programs.plan(self._sections, self._running, states, foreign))
        self.report = Report(
            pending_restart=list(self.plan.pending_restart),
            pending_stop=list(self.plan.pending_stop),
            before=self._file.text,
            after=programs.join(self._sections),
        )

    def start(self, check: bool) -> None:
        """Start what is new or stands still, and wait until it is ready. On failure all is as it was before."""
        self._must_run(check)
        self.report.started = [name for name in self.programs if name in {*self.plan.new, *self.plan.idle}]
        self.report.undrained = self._left_draining()
        if check:
            return
        probes.in_parallel(probes.undrain, map(self._admin, self.report.undrained))
        try:
            self._write()
            self._launch(self.report.started)
        except BaseException:
            self._undo_start()
            raise
        self._note(self._running | {name: self._sections[name] for name in self._unchanged()})

    def restart(self, only: Collection[str] | None, check: bool) -> None:
        """Replace running programs whose definition changed. A new definition that does not start gives way to the
        old one, which is started again."""
        self._must_run(check)
        names = [name for name in self.plan.pending_restart if only is None or name in only]
        self.report.restarted = names
        self.report.pending_restart = [name for name in self.plan.pending_restart if name not in names]
        if check:
            return
        self._write()
        if not names:
            return
        self._drain(names)
        self._retire(names)
        failures = self._failures(names, lambda: self._add(names), hopeless={*GIVEN_UP, "BACKOFF"})
        good = [name for name in names if name not in failures]
        self._note(self._running | {name: self._sections[name] for name in good})
        if failures:
            self.report.restarted = good
            self.report.pending_restart = [name for name in self.plan.pending_restart if name not in good]
            raise LifecycleError(self._put_back(failures))

    def prune(self, check: bool) -> None:
        """Drain, stop and forget what is not in the list."""
        self._must_run(check)
        self.report.stopped, self.report.pending_stop = self.report.pending_stop, []
        if check:
            return
        self._write()
        self._drain(self.report.stopped)
        self._retire(self.report.stopped)
        self._note({name: text for name, text in self._running.items() if name not in self.report.stopped})

    def shutdown(self, check: bool) -> None:
        """Stop every program, and supervisord; nothing where it does not run."""
        self.report.after = self.report.before
        self.report.pending_restart, self.report.pending_stop = [], []
        self.report.stopped = sorted(self._processes)
        if self.runs and not check:
            # By itself, supervisord stops one program after the other, which takes half a second each.
            self._retire(self.report.stopped)
            self._supervisor.shutdown(STOP_MARGIN_SECONDS)

    # What is there

    def _look(self) -> tuple[Sections, set[str]]:
        """The sections of what runs, and the active programs that others defined."""
        written, noted = programs.split(self._file.text), programs.split(self._record.text)
        active = set(self._processes)
        try:
            difference = self._supervisor.reread() if self.runs else None
        except UnreadableConfigError:
            changed, removed = active, set[str]()
        else:
            changed = set(difference.changed) if difference else set()
            removed = set(difference.removed) if difference else set()
        foreign = active - set(written) - set(noted) - removed
        return programs.running_sections(written, noted, active, changed), foreign

    def _in_order(self, plan: Plan) -> Plan:
        """The plan's names in the list's order; those to stop, last started first."""
        order = {name: index for index, name in enumerate(self.programs)}

        def sort(names: list[str]) -> list[str]:
            return sorted(names, key=lambda name: order[name])

        return Plan(
            new=sort(plan.new),
            idle=sort(plan.idle),
            starting=sort(plan.starting),
            pending_restart=sort(plan.pending_restart),
            pending_stop=sorted(plan.pending_stop, key=lambda name: (-self._priority(name), name)),
        )

    def _unchanged(self) -> list[str]:
        return [name for name in self.programs if name not in self.plan.pending_restart]

    def _young(self) -> list[str]:
        """Running programs that may not be ready yet, since supervisord started them a moment ago."""
        return [
            name
            for name, process in self._processes.items()
            if name in self.programs
            and name not in self.plan.pending_restart
            and process.state == "RUNNING"
            and process.now - process.start <= self.timeout
        ]

    def _left_draining(self) -> list[str]:
        """Programs that an interrupted run drained, and that are to stay."""
        candidates = [
            name
            for name in self._unchanged()
            if self.programs[name].drain and name in self._processes and self._processes[name].state == "RUNNING"
        ]
        draining = probes.in_parallel(probes.is_draining, map(self._admin, candidates))
        return [name for name, is_draining in zip(candidates, draining, strict=True) if is_draining]

    def _admin(self, name: str) -> str:
        return str((self.programs[name].drain or {})["admin"])

    def _priority(self, name: str) -> int:
        return self._number(name, "priority", 999)

    def _number(self, name: str, option: str, default: int) -> int:
        section = self._running.get(name) or self._sections.get(name, "")
        return programs.number(section, option, default)

    # Files

    def _write(self) -> None:
        """Have supervisord know what is wanted, which by itself starts and stops nothing."""
        self._note(self._running)
        self._install(self.report.after)

    def _must_run(self, check: bool) -> None:
        if not (self.runs or check):
            self.report.after = self.report.before
            raise LifecycleError(
                f"supervisord does not run: nothing answers at {self._supervisor.path}; start it before its programs"
            )

    def _install(self, text: str | None) -> None:
        if self._file.write(text):
            self._supervisor.reread()

    def _note(self, sections: Sections) -> None:
        known = {name: text for name, text in sorted(sections.items()) if text}
        self._record.write(programs.join(known))

    # Processes

    def _launch(self, names: list[str]) -> None:
        """Start programs and wait for them, and for those on the way by themselves. Raises LifecycleError."""
        first = [name for name in names if self.programs[name].first]
        rest = [name for name in names if name not in first]
        failures = self._failures(first, lambda: self._begin(first)) if first else {}
        if not failures:
            failures = self._failures([*rest, *self.plan.starting, *self._young()], lambda: self._begin(rest))
        if failures:
            raise LifecycleError(
                f"{_count(failures)} did not start; nothing was changed:\n" + "\n".join(failures.values())
            )

    def _begin(self, names: list[str]) -> None:
        replaced = [name for name in names if name in self.plan.idle and self._differs(name)]
        same = [name for name in names if name in self.plan.idle and name not in replaced]
        self._retire(replaced)
        self._stopped(same)
        self._add([name for name in names if name not in same])
        for name in same:
            self._supervisor.start(name)

    def _differs(self, name: str) -> bool:
        return programs.definition(self._sections[name]) != programs.definition(self._running[name])

    def _undo_start(self) -> None:
        """Remove what was added, with the file as it was before."""
        replaced = [name for name in self.plan.idle if self._differs(name)]
        before = self.report.before if self._file.existed else None
        self.report.after = self.report.before
        self.report.started = []
        self.report.undrained = []
        try:
            self._retire([*self.plan.new, *replaced])
            self._install(before)
            self._add([name for name in replaced if self._running[name]])
        except (SupervisorError, LifecycleError):
            self._file.write(before)

    def _put_back(self, failures: dict[str, str]) -> str:
        """Start the old definitions of programs whose new ones failed; the message for the user."""
        old = {name: self._running[name] for name in failures if self._running[name]}
        self.report.after = programs.join(self._sections | old)
        self._retire(list(old))
        self._install(self.report.after)
        again = self._failures(list(old), lambda: self._add(list(old)))
        lines = [f"{_count(failures)} did not start with a new definition:", *failures.values()]
        if set(old) - set(again):
            lines.append(f"Running again with the old definition: {', '.join(sorted(set(old) - set(again)))}")
        if again:
            lines += ["The old definition does not start any more either:", *again.values()]
        if set(failures) - set(old):
            lines.append(f"No old definition is known: {', '.join(sorted(set(failures) - set(old)))}")
        return "\n".join(lines)

    def _add(self, names: Iterable[str]) -> None:
        for name in names:
            self._supervisor.add(name)

    def _drain(self, names: Iterable[str]) -> None:
        """All at once, each as long as it says; by what they run with, not by what is wanted."""
        running = [name for name in names if name in self._processes and self._processes[name].state == "RUNNING"]
        drains = [programs.notes(self._running[name]).get("drain") for name in running]
        probes.in_parallel(lambda drain: probes.drain(drain["admin"], drain["seconds"]), filter(None, drains))

    def _retire(self, names: Iterable[str]) -> None:
        """Stop and forget programs: those with the highest priority number first, equal ones together."""
        stages: dict[int, list[str]] = {}
        for name in names:
            stages.setdefault(self._priority(name), []).append(name)
        for priority in sorted(stages, reverse=True):
            self._until_gone(stages[priority], self._supervisor.remove)

    def _stopped(self, names: Iterable[str]) -> None:
        """Wait for programs that are being stopped."""
        self._until_gone(names, lambda name: self._supervisor.processes()[name].state != "STOPPING")

    def _until_gone(self, names: Iterable[str], gone: Callable[[str], bool]) -> None:
        pending = list(names)
        seconds = max((self._number(name, "stopwaitsecs", 10) for name in pending), default=0)
        deadline = time.monotonic() + seconds + STOP_MARGIN_SECONDS
        while pending := [name for name in pending if not gone(name)]:
            if time.monotonic() > deadline:
                raise LifecycleError(f"supervisord could not stop {', '.join(pending)} in {seconds} s, nor kill it")
            for name in pending:
                self._supervisor.stop(name)
            time.sleep(POLL_SECONDS)

    # Waiting

    def _failures(
        self, names: list[str], launch: Callable[[], None], hopeless: Collection[str] = GIVEN_UP
    ) -> dict[str, str]:
        """Launch programs and wait until each runs and is ready: what to say about those that do not. In a
        ``hopeless`` state, a program is not waited for any longer."""
        logs = {name: _Log(self._log(name)) for name in names}
        launch()
        deadline = time.monotonic() + self.timeout
        pending = dict.fromkeys(names, "")
        failures: dict[str, str] = {}
        while pending:
            processes = self._supervisor.processes()
            late = time.monotonic() > deadline
            for name, why in self._waiting(list(pending), processes).items():
                process = processes.get(name)
                if why and not late and process and process.state not in hopeless:
                    continue
                del pending[name]
                if why:
                    failures[name] = self._failure(name, why, process, logs[name])
            if pending:
                time.sleep(POLL_SECONDS)
        return {name: failures[name] for name in names if name in failures}

    def _waiting(self, names: list[str], processes: dict[str, Process]) -> dict[str, str]:
        """For each program what it lacks: "" when it is ready."""
        running = [name for name in names if name in processes and processes[name].state == "RUNNING"]
        lacks = probes.in_parallel(self._not_ready, running)
        return dict.fromkeys(names, "not running") | dict(zip(running, lacks, strict=True))

    def _not_ready(self, name: str) -> str:
        ready = self.programs[name].ready
        return probes.not_ready(ready) if ready else ""

    def _failure(self, name: str, why: str, process: Process | None, log: _Log) -> str:
        """``- name: STATE, how it ended; why``, its command and the last lines of its log."""
        what = process.state if process else "gone"
        if process and process.state == "RUNNING":
            what += f", but not ready after {self.timeout:g} s ({why})"
        else:
            what += f", {self._ended(name, process)}"
        command = shlex.join(self.programs[name].command)
        return "\n".join([f"- {name}: {what}", f"    command: {command}", *log.report()])

    def _ended(self, name: str, process: Process | None) -> str:
        """How the start failed. Supervisord calls every early exit "too quickly" and keeps its status to its log."""
        if process and process.error and not process.error.startswith(("Exited too quickly", "Bad exit code")):
            return process.error
        return self._supervisor.last_exit(name) or f"not running after {self.timeout:g} s"

    def _log(self, name: str) -> Path:
        return Path(self.programs[name].log)


class _TextFile:
    """A file only its owner reads, replaced as a whole. An absent one has no text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.existed = path.exists()
        self.text = path.read_text(encoding="utf-8") if self.existed else ""

    def write(self, text: str | None) -> bool:
        """Whether the file had to be changed; None removes it."""
        if text == (self.text if self._path.exists() else None):
            return False
        self.text = text or ""
        if text is None:
            self._path.unlink()
            return True
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
        draft.replace(self._path)
        return True


class _Log:
    """What a program writes into its log from now on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def report(self) -> list[str]:
        """Its last lines, for a message."""
        try:
            with self._path.open("rb") as stream:
                size = stream.seek(0, os.SEEK_END)
                # A smaller file than before was rotated: all of it is new.
                start = self._offset if size >= self._offset else 0
                stream.seek(max(start, size - _LOG_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()[-LOG_LINES:]
        except OSError as error:
            return [f"    log: {error}"]
        if not lines:
            return [f"    {self._path} has no line of this start"]
        return [f"    last lines of {self._path}:", *(f"      {line}" for line in lines)]


def _count(names: Collection[Any]) -> str:
    return f"{len(names)} program{'' if len(names) == 1 else 's'}"
