"""Molecule's scenarios, each in a home of its own: Molecule installs a copy of the collection there."""

from __future__ import annotations

import re

from parts.running import BIN, ON_PATH, Check, Log, make_home, temporary_folder, verdict


def run(log: Log) -> list[Check]:
    return scenario(log, "default")


def scenario(log: Log, name: str, **variables: str) -> list[Check]:
    with temporary_folder() as folder:
        env = {**make_home(folder), **ON_PATH, "NO_COLOR": "1", **variables}
        code, output = log.run([BIN / "molecule", "test", "--scenario-name", name], env=env)
    # Lines of the summary in the end.
    steps = re.findall(rf"^{name} > (\w+): Executed: (Successful|Failed)", output, re.MULTILINE)
    checks = [verdict(f"{name}: {step}", how == "Successful", "see the log") for step, how in steps]
    return [*checks, verdict(f"molecule test of {name}", not code, f"exit code {code}")]
