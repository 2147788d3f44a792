"""The test cluster: its programs, built while other parts run, and the tests on it."""

from __future__ import annotations

import os
import shutil
import sys

from parts.running import ROOT, Check, Log, Skipped

BUILD = "from cluster.build import build; build()"


def programs(log: Log) -> list[Check]:
    """By the Python that runs this, since the building takes longer than anything else, and needs no .venv."""
    if os.environ.get("KUBECONFIG"):
        raise Skipped("KUBECONFIG names a cluster that takes its place")
    if os.geteuid() or not shutil.which("go"):
        raise Skipped("the cluster needs root and Go")
    return [log.check("they are built", [sys.executable, "-c", BUILD], cwd=ROOT / "tests")]
