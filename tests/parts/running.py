"""What every part uses: checks, a log that runs commands, and copies and environments to run them in."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".cache"
OUTPUT = ROOT / "tests" / "output"
BIN = ROOT / ".venv" / "bin"
ON_PATH = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
"""For programs that call others of .venv."""
MESH = Path("ansible_collections", "sidecar", "mesh")
"""Where a collection of this name lies below a collections path."""

CHOSEN = () if os.environ.get("THOROUGH") else ("-m", "not thorough")
"""Of pytest's tests: those that take minutes each are for those who ask for all."""

State = Literal["passed", "failed", "skipped"]
Command = Sequence[object]
"""Words of a command; str() makes each of them text."""


@dataclass(frozen=True)
class Check:
    """One thing that was tested; ``reason`` says why it failed or was skipped."""

    name: str
    state: State
    reason: str = ""


RUNNING: set[subprocess.Popen[bytes]] = set()
INTERRUPTED = threading.Event()
MAKING: dict[Path, threading.Lock] = {}
"""Environments that two parts may want at the same time."""


def interrupt(*_signal: object) -> None:
    """End what runs, and start nothing more: the parts fail, tidy up, and the runner sums up."""
    INTERRUPTED.set()
    for process in list(RUNNING):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


class Skipped(Exception):  # noqa: N818 - it is no error
    """A part cannot run here; the message says why."""


def plain_environment() -> dict[str, str]:
    """The caller's environment without what would make the tools under test behave differently."""
    ours = ("ANSIBLE_", "MAKE", "MFLAGS", "MOLECULE_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "XDG_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@dataclass(frozen=True)
class Log:
    """The output of one part: a file below tests/output."""

    path: Path
    nice: int = 0
    """How far commands leave the processor to those of other parts."""

    @classmethod
    def fresh(cls, name: str, *, nice: int = 0) -> Log:
        path = OUTPUT / f"{name}.log"
        path.write_text("")
        return cls(path, nice)

    def write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as log:
            log.write(text.rstrip("\n") + "\n")

    def tail(self, lines: int) -> str:
        return "\n".join(self.path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def run(
        self,
        command: Command,
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        timeout: float = 2400,
        tidies_up: bool = False,
    ) -> tuple[int, str]:
        """Run a command; return its exit code (124 after ``timeout`` seconds) and its output, also in the log.

        What ``tidies_up`` runs after an interrupt, too.
        """
        if INTERRUPTED.is_set() and not tidies_up:
            raise RuntimeError("interrupted")
        words = [str(word) for word in command]
        self.write(f"\n$ {shlex.join(words)}")
        start = self.path.stat().st_size
        with self.path.open("ab") as log:
            process = subprocess.Popen(
                words,
                cwd=cwd,
                env={**plain_environment(), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            if self.nice:
                _give_way(process.pid, self.nice)
            code = _wait(process, timeout)
        if code == 124:
            self.write(f"stopped after {timeout:.0f} s")
        with self.path.open("rb") as log:
            log.seek(start)
            return code, log.read().decode("utf-8", "replace")

    def must(self, command: Command, **options: Any) -> str:
        """Run a command that a part cannot go on without; return its output."""
        code, output = self.run(command, **options)
        if code:
            raise RuntimeError(f"{shlex.join(map(str, command))}: exit code {code}")
        return output

    def check(self, name: str, command: Command, **options: Any) -> Check:
        """A check that passes if the command exits with 0."""
        code = self.run(command, **options)[0]
        return verdict(name, not code, f"exit code {code}")


def _give_way(session: int, nice: int) -> None:
    with suppress(OSError):  # it has ended already, or this Linux does not group sessions
        os.setpriority(os.PRIO_PGRP, session, nice)
        # Linux first shares the processor among sessions: niceness alone counts within one.
        Path(f"/proc/{session}/autogroup").write_text(str(nice))


def _wait(process: subprocess.Popen[bytes], timeout: float) -> int:
    RUNNING.add(process)
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        return 124
    finally:
        RUNNING.discard(process)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def verdict(name: str, good: bool, reason: str) -> Check:
    return Check(name, "passed") if good else Check(name, "failed", reason)


def read_junit(report: Path) -> Iterator[Check]:
    """One check per test case of a pytest report."""
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')} {case.get('name')}"
        bad = [part for part in case if part.tag in ("failure", "error")]
        skipped = case.find("skipped")
        if bad:
            yield Check(name, "failed", (bad[0].get("message") or "no message").splitlines()[0])
        elif skipped is not None:
            yield Check(name, "skipped", skipped.get("message") or skipped.text or "no reason given")
        else:
            yield Check(name, "passed")


def pytest(log: Log, name: str, arguments: Command, *, python: Path, **options: Any) -> list[Check]:
    """Run pytest; a run that broke off, or found no test, is a failed check of its own."""
    report = log.path.with_suffix(f".{name}.xml")
    report.unlink(missing_ok=True)
    command = [python, "-m", "pytest", *CHOSEN, "--junit-xml", report, *arguments]
    code = log.run(command, **options)[0]
    checks = list(read_junit(report)) if report.exists() else []
    if code and not any(check.state == "failed" for check in checks):
        checks.append(Check(f"pytest {name}", "failed", f"exit code {code}"))
    return checks


def make_home(folder: Path) -> dict[str, str]:
    """Make a folder into a home that knows the caller's settings of pip, and what it has downloaded; return the
    variables that make it one."""
    places = {"CACHE": ".cache", "CONFIG": ".config", "DATA": ".local/share", "STATE": ".local/state"}
    settings = folder / places["CONFIG"] / "pip" / "pip.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.touch(mode=0o600)
    command = [sys.executable, "-m", "pip", "config", "list"]
    config = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Lines like global.timeout='60', or :env:.timeout='60' for a variable, which wins and comes first.
    listed = re.findall(r"^(?::env:|global|install)\.([\w-]+)=(.*)$", config, re.MULTILINE)
    known = {"cache-dir": repr(f"{Path.home()}/.cache/pip"), **dict(reversed(listed))}
    lines = [f"{name} = {ast.literal_eval(value)}" for name, value in sorted(known.items())]
    settings.write_text("\n".join(["[global]", *lines, ""]))
    return {"HOME": str(folder), **{f"XDG_{name}_HOME": str(folder / place) for name, place in places.items()}}


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder; it goes in the end, and with it whatever still runs in it."""
    with TemporaryDirectory(prefix="sidecar-mesh-", ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            for pid in processes_of(Path(folder)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def processes_of(folder: Path) -> list[int]:
    """Processes that have this folder in their environment or arguments."""
    return [int(process.name) for process in Path("/proc").glob("[0-9]*") if _mentions(process, str(folder))]


def _mentions(process: Path, text: str) -> bool:
    return process.name != str(os.getpid()) and any(text in read(process / name) for name in ("environ", "cmdline"))


def read(path: Path) -> str:
    """The text of a file; nothing if it is gone, or somebody else's."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def checkout_files() -> list[str]:
    """What a clone would hold once everything here is committed: all files but the ignored ones."""
    # The checkout may be another user's than the tests', as on build machines.
    git = ["git", "-c", "safe.directory=*"]
    command = [*git, "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    # One that is deleted, but not yet in a commit, is listed too.
    return [name for name in listed.split("\0") if name and os.path.lexists(ROOT / name)]


def copy_checkout(target: Path) -> None:
    for name in checkout_files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name, follow_symlinks=False)


def make_test_venv(log: Log) -> None:
    """Give the checkout's .venv the tests' tools; how is the Makefile's business."""
    code, output = log.run(["make", "--no-print-directory", ".venv/.test"], env={"PYTHON": sys.executable})
    if code:
        sys.exit(f"The tests' environment cannot be made:\n{output}")


def own_venv(log: Log, name: str, *installs: Command, python: str | Path = sys.executable) -> Path:
    """The bin folder of an environment below .cache, by one `pip install` after the other; new when any has changed."""
    folder = CACHE / name
    stamp = folder / "made-with"
    with MAKING.setdefault(folder, threading.Lock()):
        _make_venv(log, folder, stamp, installs, python)
    return folder / "bin"


def _make_venv(log: Log, folder: Path, stamp: Path, installs: Sequence[Command], python: str | Path) -> None:
    files = [word.read_text() for words in installs for word in words if isinstance(word, Path)]
    wanted = "\n".join([str(folder), str(python), *(shlex.join(map(str, words)) for words in installs), *files])
    if not stamp.exists() or stamp.read_text() != wanted:
        log.must([python, "-m", "venv", "--clear", folder])
        for words in installs:
            pip = [folder / "bin" / "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
            log.must([*pip, *words])
        stamp.write_text(wanted)
