# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inotify instances of this user: an Envoy takes one for every file it watches, and aborts when there is none left.

Source: inotify(7), "/proc interfaces"; Envoy, source/common/filesystem/inotify/watcher_impl.cc.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
LIMIT = "fs.inotify.max_user_instances"
_LINK = "anon_inode:inotify"


def limit(proc: Path = PROC) -> int | None:
    """How many instances this user may have; None where that is not known."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path(proc, "sys", *LIMIT.split(".")).read_text(encoding="utf-8"))
    return None


def used(proc: Path = PROC) -> dict[int, int]:
    """Instances by the process that has them, of all processes of this user."""
    found = {pid: _instances(proc / str(pid)) for pid in _pids(proc)}
    return {pid: count for pid, count in found.items() if count}


def _pids(proc: Path) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for process in proc.iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and process.stat().st_uid == os.geteuid():
                    yield int(process.name)


def _instances(process: Path) -> int:
    count = 0
    # A process may end at any time.
    with contextlib.suppress(OSError):
        for name in os.listdir(process / "fd"):  # noqa: PTH208 - twice as fast for thousands of files
            with contextlib.suppress(OSError):
                count += os.readlink(f"{process}/fd/{name}") == _LINK  # noqa: PTH115
    return count
