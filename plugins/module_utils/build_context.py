# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files an image is built from, as its .dockerignore leaves them, and their digest.

Where builders differ on a pattern, a file counts: an image is then made anew once too often, never once too seldom.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

# Who may read and execute a file. Write permissions differ with the umask of whoever checks sources out, and mean
# nothing in an image whose user owns none of its files.
_MODE = 0o555

Pattern = tuple[bool, str, re.Pattern[str]]
"""Whether it takes files back in, its text, and what it matches."""


def ignore_file(context: Path, dockerfile: Path) -> Path | None:
    """The file that says what is left out: that of the Dockerfile, else that of the context.

    Source: Docker docs, "Build context", filename and location.
    """
    for path in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if path.is_file():
            return path
    return None


def patterns(text: str) -> list[Pattern]:
    """The lines of a .dockerignore. Source: moby/patternmatcher, ``ignorefile`` and ``compile``."""
    found = []
    for number, line in enumerate(text.splitlines()):
        words = line.removeprefix("\ufeff") if number == 0 else line
        pattern = words.strip()
        if words.startswith("#") or not pattern:
            continue
        back = pattern.startswith("!")
        pattern = posixpath.normpath(pattern.removeprefix("!").strip()).lstrip("/")
        if pattern not in ("", "."):
            found.append((back, pattern, re.compile(_regex(pattern), re.DOTALL)))
    return found


def _regex(pattern: str) -> str:
    out, rest = "", pattern
    while rest:
        if rest.startswith("**"):
            rest = rest[2:].lstrip("*").removeprefix("/")
            out += "(.*/)?" if rest else ".*"
        elif rest[0] in "*?":
            out += "[^/]*" if rest[0] == "*" else "[^/]"
            rest = rest[1:]
        elif rest[0] == "[" and "]" in rest[2:]:
            group, end, rest = rest[1:].partition("]")
            out += f"[{group}{end}"
        else:
            # A backslash takes the next character as it is.
            size = 2 if rest[0] == "\\" and len(rest) > 1 else 1
            out += re.escape(rest[size - 1])
            rest = rest[size:]
    return out


def ignored(path: str, rules: list[Pattern]) -> bool:
    """Whether a path is left out: the last pattern that matches it, or a folder it is in, decides."""
    parts = path.split("/")
    parents = ["/".join(parts[:size]) for size in range(1, len(parts) + 1)]
    result = False
    for back, _text, regex in rules:
        if result == back and any(regex.fullmatch(parent) for parent in parents):
            result = not back
    return result


def files(context: Path, rules: list[Pattern]) -> Iterator[tuple[str, Path]]:
    """Paths of all files and links that are sent to a builder, with where they are, in no order."""
    folders = [("", context)]
    while folders:
        prefix, folder = folders.pop()
        for entry in os.scandir(folder):
            path = f"{prefix}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                if not ignored(path, rules) or _returns(path, rules):
                    folders.append((f"{path}/", Path(entry)))
            elif not ignored(path, rules):
                yield path, Path(entry)


def _returns(folder: str, rules: list[Pattern]) -> bool:
    """Whether a file below an ignored folder may be taken back in."""
    beginnings = [re.split(r"[*?\[\\]", text, maxsplit=1)[0] for back, text, _regex in rules if back]
    return any(f"{folder}/".startswith(start) or start.startswith(f"{folder}/") for start in beginnings)


def digest(context: Path, dockerfile: Path, more: object) -> str:
    """Hex digest of everything an image is built from; ``more``: what is not a file, as plain data."""
    ignore = ignore_file(context, dockerfile)
    rules = patterns(ignore.read_text(encoding="utf-8")) if ignore else []
    listed = sorted((path, *_described(place)) for path, place in files(context, rules))
    content = {"dockerfile": _described(dockerfile), "files": listed, "more": more}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _described(path: Path) -> tuple[str, int]:
    """A file's content and mode; of a link where it leads, of a socket or the like nothing."""
    if path.is_symlink():
        return f"link {path.readlink()}", 0
    if not path.is_file():
        return "other", 0
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_mode & _MODE
