"""The test cluster: its programs and images, made while other parts run, and the tests on it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.sharing import beside_others

from parts import molecule
from parts.running import BIN, ROOT, Check, Log, Skipped, pytest

OUTSIDE = "KUBECONFIG" in os.environ
"""Whether a cluster of the caller's takes the place of ours."""
BUILD = "from cluster.build import build; build()"
MAKE_IMAGES = """\
from cluster.commands import PACKAGES, install_packages
from cluster.images import FOLDER, base_images
install_packages(PACKAGES)
base_images()
print(FOLDER)
"""
CLUSTER = [BIN / "python", "-m", "cluster"]
FOUND = {"PYTHONPATH": "tests"}
WITH_LOAD = ("test_cluster.py", "test_load.py", "test_control_plane.py")


def programs(log: Log) -> list[Check]:
    """By the Python that runs this: nothing takes longer, and .venv is not there yet."""
    _require_ours()
    return [log.check("they are built", [sys.executable, "-c", BUILD], cwd=ROOT / "tests")]


def images(log: Log) -> list[Check]:
    _require_ours()
    return [log.check("they are made", [BIN / "python", "-c", MAKE_IMAGES], cwd=ROOT / "tests")]


def run(log: Log) -> list[Check]:
    files = sorted(path for path in (ROOT / "tests" / "cluster").glob("test_*.py") if path.name not in WITH_LOAD)
    with _cluster(log) as kubeconfig:
        checks = pytest(log, "cluster", files, python=BIN / "python", env={"KUBECONFIG": kubeconfig})
        with beside_others():
            return [*checks, *molecule.scenario(log, "kubernetes", KUBECONFIG=kubeconfig)]


def load(log: Log) -> list[Check]:
    """Each file by itself: together they take longer than a command may."""
    files = [ROOT / "tests" / "cluster" / name for name in WITH_LOAD]
    with _cluster(log) as kubeconfig:
        options = {"python": BIN / "python", "env": {"KUBECONFIG": kubeconfig}}
        return [check for file in files for check in pytest(log, file.stem, [file], **options)]


@contextmanager
def _cluster(log: Log) -> Iterator[str]:
    """The kubeconfig of a cluster that ends with the block, unless it was there before."""
    if not OUTSIDE:
        _require()
    there = OUTSIDE or "RUNNING" in log.run([*CLUSTER, "status"], env=FOUND)[1]
    kubeconfig = log.must([*CLUSTER, "up"], env=FOUND).rpartition("KUBECONFIG=")[2].strip()
    try:
        yield kubeconfig
    finally:
        if not there:
            log.run([*CLUSTER, "down"], env=FOUND, tidies_up=True)


def _require_ours() -> None:
    if OUTSIDE:
        raise Skipped("KUBECONFIG names a cluster that has its own")
    _require()


def _require() -> None:
    if os.geteuid():
        raise Skipped("only root can start the test cluster; KUBECONFIG=... names another one")
    if not shutil.which("go"):
        raise Skipped("there is no Go on this machine to build the test cluster; KUBECONFIG=... names another one")
