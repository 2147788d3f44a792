"""docs/speed.md: the table of each subject, between two marks; what stands around them is written by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.measuring import ROOT, Row, machine

PAGE = ROOT / "docs" / "speed.md"
HEAD = ["what", "takes", "floor, in the same run", "takes", "ratio", "goal"]


def enter(subject: str, rows: Sequence[Row]) -> None:
    """Puts the rows in the place of the former ones."""
    table = "\n".join([_line(HEAD), _line(["---"] * len(HEAD)), *(_line(row.cells()) for row in rows)])
    marks = f"<!-- begin {subject} -->", f"<!-- end {subject} -->"
    text = PAGE.read_text(encoding="utf-8")
    if marks[0] not in text:
        text += f"\n## {subject.capitalize()}\n\n{marks[0]}\n{marks[1]}\n"
    between = re.compile(f"(?<={re.escape(marks[0])}\n).*?(?={re.escape(marks[1])})", re.DOTALL)
    entry = f"\n{table}\n\n{machine()}.\n\n"
    PAGE.write_text(between.sub(lambda _match: entry, text), encoding="utf-8")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
