# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A k3s binary as a file: what it was built for, so that it is not copied to machines that cannot run it."""

from __future__ import annotations

from pathlib import Path

MACHINES = {0x3E: "x86_64", 0xB7: "aarch64", 0x28: "armv7l"}
"""``e_machine`` of an ELF header, as ``uname -m`` names it."""


def architecture(header: bytes) -> str:
    """What the first bytes of a program say it runs on; ``any`` of a script, nothing of what is no program."""
    if header.startswith(b"#!"):
        return "any"
    if not header.startswith(b"\x7fELF") or len(header) < 20:
        return ""
    number = int.from_bytes(header[18:20], "little" if header[5] == 1 else "big")
    return MACHINES.get(number, f"machine {number:#x}")


def architecture_of(path: Path) -> str:
    with path.open("rb") as file:
        return architecture(file.read(20))
