"""The command tests/run: runs parts, reports them, and sums them up in its last line."""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from textwrap import shorten

from parts import applications, artifact, cluster, demo, importer, molecule, nodes, pytests, same_bytes, sanity, static
from parts.running import OUTPUT, Check, Log, Skipped, interrupt, make_test_venv

TAIL = 80
"""How many lines of a failed part's log are shown."""
VENV = "venv"
"""The checkout's .venv with the tests' tools, as something to wait for."""


@dataclass(frozen=True)
class Part:
    """Parts of one lane run one after the other, in the order of PARTS, and lanes beside each other.

    ``nice``: what everything else waits for has less than 0, what starts meshes or measures time has 0, and what only
    computes leaves the processor to both. ``after``: parts of other lanes that have to end first, if they run at all,
    and VENV.
    """

    name: str
    title: str
    run: Callable[[Log], list[Check]]
    lane: str
    nice: int = 10
    after: tuple[str, ...] = (VENV,)
    named: bool = False
    """It runs only if it is asked for by its name: with it, a run of all takes too long on two cores."""


PARTS = [
    Part("programs", "the programs of the test cluster", cluster.programs, "cluster", nice=-5, after=()),
    Part("images", "the images of the test cluster", cluster.images, "cluster", nice=-5),
    Part(
        "cluster",
        "a real Kubernetes of two nodes, and molecule scenario kubernetes on it",
        cluster.run,
        "cluster",
        nice=0,
    ),
    Part("load", "load on a mesh there, whatever is done to it", cluster.load, "cluster", nice=0, named=True),
    Part(
        "nodes",
        "k3s' installation on bare nodes, with a stand-in for k3s",
        nodes.run,
        "nodes",
        nice=0,
        after=(VENV, "programs"),
        named=True,
    ),
    Part("k3s", "real k3s and Cilium on bare nodes, where they are given", nodes.real, "nodes", nice=0),
    Part("behaviour", "behaviour of real Envoys", pytests.behaviour, "meshes", nice=0, after=(VENV, "programs")),
    Part("molecule", "molecule scenario default", molecule.run, "meshes", nice=0),
    Part("demo", "make demo, as an ordinary user from a clean clone", demo.run, "meshes", nice=0),
    Part(
        "local",
        "engine local: its modules and its role, on real processes",
        pytests.local,
        "local",
        nice=0,
        after=(VENV, "programs"),
    ),
    Part("artifact", "the built artifact, used from a foreign playbook", artifact.run, "local", nice=0),
    Part("unit", "unit and golden tests", pytests.unit, "short"),
    Part("mypy", "mypy --strict on the model and the builders", static.mypy, "short"),
    Part("lint", "ruff, and ansible-lint with profile production", static.lint, "short"),
    Part("applications", "the example applications' own tests", applications.run, "short", nice=0),
    Part("importer", "galaxy-importer on the built artifact", importer.run, "short"),
    Part("sanity", "ansible-test sanity on the oldest and the newest supported ansible-core", sanity.run, "sanity"),
    Part("changelog", "changelog fragments", static.changelog, "shortest"),
    Part("bytes", "the same bytes on every Python and ansible-core", same_bytes.run, "shortest"),
    Part("random", "random inventories, valid and damaged (make prove: more of them)", pytests.properties, "shortest"),
]


def main() -> int:
    parts = _chosen_parts()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    started = time.monotonic()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    lanes = [[part for part in parts if part.lane == lane] for lane in dict.fromkeys(part.lane for part in parts)]
    ended = {name: threading.Event() for name in (VENV, *(part.name for part in parts))}
    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        running = pool.map(partial(_run_lane, ended), lanes)
        try:
            make_test_venv(Log.fresh(VENV))
        except BaseException:
            interrupt()
            raise
        finally:
            ended[VENV].set()
        results = dict(chain.from_iterable(running))
    return _sum_up(results, time.monotonic() - started)


def _chosen_parts() -> list[Part]:
    parser = argparse.ArgumentParser(
        prog="tests/run",
        description="Runs the tests: all parts, or those named.",
        epilog="\n".join(f"  {part.name:12} {part.title}" for part in PARTS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--list", action="store_true", help="print the parts' names and stop")
    parser.add_argument("parts", nargs="*", metavar="part", help="one of those below")
    arguments = parser.parse_args()
    names = [part.name for part in PARTS]
    if arguments.list:
        print("\n".join(names))
        sys.exit()
    unknown = sorted(set(arguments.parts) - set(names))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)} (there are: {', '.join(names)})")
    return [part for part in PARTS if (part.name in arguments.parts if arguments.parts else not part.named)]


def _run_lane(ended: dict[str, threading.Event], parts: list[Part]) -> list[tuple[str, list[Check]]]:
    results = []
    for part in parts:
        for other in ended.keys() & set(part.after):
            ended[other].wait()
        try:
            results.append(_run(part))
        finally:
            ended[part.name].set()
    return results


def _run(part: Part) -> tuple[str, list[Check]]:
    log = Log.fresh(part.name, nice=part.nice)
    started = time.monotonic()
    try:
        checks = part.run(log) or [Check(part.title, "failed", "it checked nothing")]
    except Skipped as reason:
        checks = [Check(part.title, "skipped", str(reason))]
    except Exception as error:  # noqa: BLE001 - whatever a part dies of is a failed check, and the others go on
        log.write(traceback.format_exc())
        checks = [Check(part.title, "failed", f"{type(error).__name__}: {error}")]
    lines = [f"== {part.name}: {part.title} ({time.monotonic() - started:.0f} s)", f"   {_counts(checks)}"]
    failed = [check for check in checks if check.state == "failed"]
    if failed:
        lines += [_reported(part.name, check) for check in failed]
        lines += [f"   the last lines of {log.path}:", log.tail(TAIL)]
    print("\n".join(lines), flush=True)
    return part.name, checks


def _reported(part: str, check: Check) -> str:
    return shorten(f"{check.state}: {part}: {check.name}: {check.reason}", width=300, placeholder=" …")


def _counts(checks: Iterable[Check]) -> str:
    number = Counter(check.state for check in checks)
    return f"{number['passed']} passed, {number['failed']} failed, {number['skipped']} skipped"


def _sum_up(results: dict[str, list[Check]], seconds: float) -> int:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = f"{seconds / 60:.1f} minutes, {(used.ru_utime + used.ru_stime) / 60:.1f} of the processor"
    print(f"\n== Result of {len(results)} parts after {took}")
    for name, checks in results.items():
        print(f"   {name:12} {_counts(checks)}")
    everything = [(name, check) for name, checks in results.items() for check in checks]
    for state in ("failed", "skipped"):
        for name, check in everything:
            if check.state == state:
                print(_reported(name, check))
    print(_counts(check for name, check in everything))
    return int(any(check.state == "failed" for name, check in everything))


if __name__ == "__main__":
    sys.exit(main())
