"""Checks that read the sources and run nothing of them."""

from __future__ import annotations

from parts.running import BIN, ON_PATH, Check, Log


def mypy(log: Log) -> list[Check]:
    return [log.check("mypy --strict plugins/module_utils", [BIN / "mypy"])]


def lint(log: Log) -> list[Check]:
    return [
        log.check("ruff check", [BIN / "ruff", "check"]),
        log.check("shellcheck", [BIN / "shellcheck", ".ci/run", "tests/run"]),
        log.check("ansible-lint", [BIN / "ansible-lint", "--offline", "--strict", "--nocolor"], env=ON_PATH),
    ]


def changelog(log: Log) -> list[Check]:
    return [log.check("antsibull-changelog lint", [BIN / "antsibull-changelog", "lint"], env=ON_PATH)]
