"""The command ``make bench``: runs subjects, prints their rows, and enters them in docs/speed.md."""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import apply, endpoints, generator, k3s, page, push, render, rollout, traffic, unchanged
from bench.measuring import Row

SUBJECTS: dict[str, Callable[[], list[Row]]] = {
    "generator": generator.rows,
    "render": render.rows,
    "change": render.change_rows,
    "unchanged": unchanged.rows,
    "request": traffic.rows,
    "route": traffic.change_rows,
    "push": push.rows,
    "apply": apply.rows,
    "rollout": rollout.rows,
    "endpoints": endpoints.rows,
    "k3s": k3s.rows,
}


def main() -> int:
    names = sys.argv[1:] or list(SUBJECTS)
    unknown = sorted(set(names) - set(SUBJECTS))
    if unknown:
        print(f"no such part: {', '.join(unknown)} (there are: {', '.join(SUBJECTS)})", file=sys.stderr)
        return 2
    for name in names:
        found = SUBJECTS[name]()
        for row in found:
            print(row, flush=True)
        if found:
            page.enter(name, found)
    return 0


sys.exit(main())
