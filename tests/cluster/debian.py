"""Debian from the machine's own sources of packages."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cluster.commands import run


def bootstrap(target: Path | str, *, variant: str, include: Sequence[str], hooks: Sequence[str], form: str) -> None:
    """Make a Debian of the machine's suite; ``form``: as mmdebstrap's --format, ``hooks``: commands with the new root
    as $1."""
    sources = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.[ls]*[ts]"))]
    suite = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.M)
    assert suite, "/etc/os-release names no suite of packages"
    run(
        *("nice", "-n", "5", "mmdebstrap", "--quiet", "--mode=root", f"--variant={variant}", f"--format={form}"),
        f"--include={','.join(include)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in ("doc", "locale", "man")),
        *(f"--customize-hook={hook}" for hook in hooks),
        *(suite[1], target),
        *(path for path in sources if path.exists()),
    )
