"""The parts that are pytest runs in the checkout's .venv."""

from __future__ import annotations

from parts.running import BIN, Check, Log, pytest


def unit(log: Log) -> list[Check]:
    return pytest(log, "unit", ["tests/unit", "tests/golden"], python=BIN / "python")


def properties(log: Log) -> list[Check]:
    return pytest(log, "random", ["tests/properties"], python=BIN / "python")


def behaviour(log: Log) -> list[Check]:
    return pytest(log, "behaviour", ["tests/behaviour"], python=BIN / "python", timeout=2400)
