# SPDX-License-Identifier: GPL-3.0-or-later
"""What a mesh on one machine says: the configurations that were published, and where the replicas of its services are.

Source: Linux manual, inotify(7).
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inotify_simple
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Replicas

from control_plane.folders import Folder

Published = dict[str, dict[str, str]]
"""By proxy: ``workload``, ``folder``, and ``content``, the hash of the files that were published."""


def published(path: Path) -> Published:
    """Raises OSError, and ValueError for a file that is none."""
    found = _table(path, "proxies")
    for name, item in found.items():
        if not isinstance(item, dict) or not {"workload", "folder", "content"} <= item.keys():
            raise ValueError(f"{path}: proxy {name} has no workload, folder or content")
    return found


def replicas(path: Path) -> Replicas:
    """The addresses of the DNS server's zone. Raises OSError, and ValueError for a file that is none."""
    records = _table(path, "records")
    return {name: [{"address": str(address)} for address in addresses] for name, addresses in records.items()}


def folder(entry: dict[str, str]) -> Folder | None:
    """The folder of an entry of what was published; None while its files are not those."""
    try:
        paths = [path for path in Path(entry["folder"]).iterdir() if not path.name.startswith(".")]
        found = Folder.of(entry["workload"], {path.name: path.read_text(encoding="utf-8") for path in paths})
    except (OSError, UnicodeDecodeError):
        return None
    return found if found.content == entry["content"] else None


def follow(tell: Callable[[set[str]], None], *files: Path) -> Callable[[], None]:
    """Has a function called with the names of files that were replaced; what is given back ends it. Raises OSError."""
    loop, watched = asyncio.get_running_loop(), inotify_simple.INotify(nonblocking=True)
    flags = inotify_simple.flags.CLOSE_WRITE | inotify_simple.flags.MOVED_TO
    names = {file.name for file in files}
    for parent in {file.parent for file in files}:
        watched.add_watch(parent, flags)

    def seen() -> None:
        if replaced := names & {event.name for event in watched.read(timeout=0)}:
            tell(replaced)

    loop.add_reader(watched.fileno(), seen)

    def end() -> None:
        loop.remove_reader(watched.fileno())
        watched.close()

    return end


def _table(path: Path, key: str) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"{path}: {exc}") from exc
    found = data.get(key) if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: has no {key}")
    return found
