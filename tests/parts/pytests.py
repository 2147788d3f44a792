"""The parts that are pytest runs in the checkout's .venv."""

from __future__ import annotations

from parts.running import BIN, ROOT, Check, Log, pytest

LOCAL = "tests/behaviour/test_local_*.py"


def unit(log: Log) -> list[Check]:
    return pytest(log, "unit", ["tests/unit", "tests/golden"], python=BIN / "python")


def properties(log: Log) -> list[Check]:
    return pytest(log, "random", ["tests/properties"], python=BIN / "python")


def behaviour(log: Log) -> list[Check]:
    return pytest(log, "behaviour", ["tests/behaviour", "--ignore-glob", LOCAL], python=BIN / "python")


def local(log: Log) -> list[Check]:
    return pytest(log, "local", sorted(ROOT.glob(LOCAL)), python=BIN / "python")
