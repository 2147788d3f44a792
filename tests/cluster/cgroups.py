"""The cluster's control groups: every process of it is in one, so that the end leaves none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cluster.places import NAME, NODES


def make() -> None:
    """Make the groups of the nodes, which kubelets expect to find, and one for the rest."""
    for tree in _trees():
        for name in ("programs", *(node.name for node in NODES)):
            group = tree / NAME / name
            group.mkdir(parents=True, exist_ok=True)
            for made in (group.parent, group):
                _give_processors(made)
        _weigh(tree / NAME)


def make_heavy(name: str) -> None:
    """Make a group for others' processes, which counts as much as ours."""
    for tree in _trees():
        group = tree / name
        group.mkdir(exist_ok=True)
        _give_processors(group)
        _weigh(group)


def remove(name: str) -> None:
    """Remove such a group, unless something is in it."""
    for tree in _trees():
        with suppress(OSError):
            (tree / name).rmdir()


def enter() -> None:
    """Move this process, and what it starts, into the cluster's group."""
    for tree in _trees():
        (tree / NAME / "programs" / "cgroup.procs").write_text(str(os.getpid()))


def kill() -> None:
    """End whatever is in the groups, and remove them."""
    until = time.monotonic() + 30
    while processes := {pid for tree in _trees() for pid in _processes(tree / NAME)}:
        if time.monotonic() > until:
            raise RuntimeError(f"These processes of the cluster do not end: {sorted(processes)}")
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
    for tree in _trees():
        for group in sorted((tree / NAME).rglob("*/"), key=lambda path: len(path.parts), reverse=True):
            group.rmdir()
        if (tree / NAME).exists():
            (tree / NAME).rmdir()


def _trees() -> Iterator[Path]:
    """Where the kernel's hierarchies are: one in version 2, one for each controller in version 1."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, folder, kind, *_options = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield Path(folder)


def _processes(group: Path) -> Iterator[int]:
    for file in group.rglob("cgroup.procs"):
        with suppress(FileNotFoundError, OSError):
            yield from (int(pid) for pid in file.read_text().split() if pid != "0")


def _weigh(group: Path) -> None:
    """Beside a group, the kernel gives every process outside as much as the whole group. This one has dozens."""
    for name, weight in {"cpu.shares": 10240, "cpu.weight": 1000}.items():
        if (group / name).exists():
            (group / name).write_text(str(weight))


def _give_processors(group: Path) -> None:
    """In version 1 a group has no processors and no memory until somebody names them."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip() and (group / "cgroup.clone_children").exists():
            file.write_text((group.parent / name).read_text())
