# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder of files that are made together: what a new make changes, and the change itself.

A list in the folder says which files were made, so that those made no more can go and files of others stay.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LIST = ".made-by-sidecar-mesh"

Files = dict[str, str]
"""Text by path below the folder."""


@dataclass(frozen=True)
class Changes:
    """``written``: files to write, with the text that is there now, if any; ``removed``: likewise files to remove."""

    written: dict[str, str | None]
    removed: dict[str, str]
    made: list[str]
    """What the list names now."""


def changes(folder: Path, wanted: Files) -> Changes:
    """What it takes to bring a folder to the files given. Raises OSError where one of them cannot be read."""
    made = _listed(folder)
    found = {path: _read(f"{folder}/{path}") for path in wanted}
    gone = {path: _read(f"{folder}/{path}") for path in made if path not in wanted}
    return Changes(
        # As bytes, for text of others need not be UTF-8.
        {path: _text(found[path]) for path, text in wanted.items() if found[path] != text.encode()},
        {path: _text(data) or "" for path, data in gone.items() if data is not None},
        made,
    )


def bring(folder: Path, wanted: Files, change: Changes) -> None:
    """Makes the change, each file by an atomic rename. Raises OSError.

    An interrupted run leaves no file behind that the next one would not know: it is listed before it is written.
    """
    _list(folder, change.made, {*change.made, *wanted})
    for parent in sorted({(folder / path).parent for path in change.written}):
        parent.mkdir(parents=True, exist_ok=True)
    for path in change.written:
        _write(f"{folder}/{path}", wanted[path])
    for path in change.removed:
        (folder / path).unlink(missing_ok=True)
    _remove_empty(folder, change.removed)
    _list(folder, sorted({*change.made, *wanted}), set(wanted))


def _listed(folder: Path) -> list[str]:
    """What was made before; of a list that somebody changed only paths that stay below the folder."""
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / LIST).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("/") and ".." not in PurePosixPath(line).parts]
    return []


def _list(folder: Path, before: Iterable[str], paths: set[str]) -> None:
    after = sorted(paths)
    if after != list(before):
        folder.mkdir(parents=True, exist_ok=True)
        _write(f"{folder}/{LIST}", "".join(f"{path}\n" for path in after))


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - thousands of Path objects take as long as the files
            return file.read()
    except FileNotFoundError:
        return None


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def _write(path: str, text: str) -> None:
    parent, _slash, name = path.rpartition("/")
    draft = f"{parent}/.{name}.draft"
    with open(draft, "wb") as file:  # noqa: PTH123
        file.write(text.encode())
    os.replace(draft, path)  # noqa: PTH105


def _remove_empty(folder: Path, removed: Iterable[str]) -> None:
    """Folders that held nothing but removed files, the deepest first."""
    parents = {folder / parent for path in removed for parent in PurePosixPath(path).parents if parent.name}
    for parent in sorted(parents, key=lambda parent: -len(parent.parts)):
        with contextlib.suppress(OSError):
            parent.rmdir()
