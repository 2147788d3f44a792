"""The molecule scenario ``default``, in a home of its own: Molecule installs a copy of the collection there."""

from __future__ import annotations

import re

from parts.running import BIN, ON_PATH, Check, Log, make_home, temporary_folder, verdict

DONE = re.compile(r"^default > (\w+): Executed: (Successful|Failed)", re.MULTILINE)
"""A line of the summary in the end."""


def run(log: Log) -> list[Check]:
    with temporary_folder() as folder:
        env = {**make_home(folder), **ON_PATH, "NO_COLOR": "1"}
        code, output = log.run([BIN / "molecule", "test"], env=env)
    steps = [verdict(name, how == "Successful", "see the log") for name, how in DONE.findall(output)]
    return [*steps, verdict("molecule test", not code, f"exit code {code}")]
