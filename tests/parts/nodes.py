"""Bare nodes, and k3s on them: the stand-in for it always, and the real one where its parts are given."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from parts import molecule
from parts.cluster import MAKE_IMAGES
from parts.running import BIN, Check, Log, Skipped, pytest

NODES = [BIN / "python", "-m", "nodes"]
FOUND = {"PYTHONPATH": "tests"}
STAND_IN = "import nodes.stand_in; print(nodes.stand_in.build())"
GIVEN = ("K3S_BINARY", "K3S_IMAGES", "CILIUM_CHART", "CILIUM_VALUES", "HELM")
"""What names the real parts: a binary, folders of image archives with colons between them, the chart's .tgz, a file of
values for it, and a Helm. NODES_FILES may name a folder besides, which is copied onto every node."""
FLEETS = os.environ.get("NODES", "one pair ha").split()


def run(log: Log) -> list[Check]:
    _require()
    checks = pytest(log, "nodes", ["tests/nodes"], python=BIN / "python")
    stand_in = log.must([BIN / "python", "-c", STAND_IN], env=FOUND).split()[-1]
    for fleet in FLEETS:
        checks += _scenario(log, fleet, "the stand-in for k3s", K3S_STAND_IN=stand_in)
    return checks


def real(log: Log) -> list[Check]:
    """The whole of playbook site; without a chart, k3s alone on nodes that have a network of their own."""
    given = {name: os.environ[name] for name in GIVEN if os.environ.get(name)}
    if "K3S_BINARY" not in given:
        raise Skipped("real k3s is in no registry; name its binary in K3S_BINARY (CONTRIBUTING.md, Nodes)")
    _require()
    whole = "CILIUM_CHART" in given
    checks = []
    if whole:
        given["MESH_IMAGES"] = log.must([BIN / "python", "-c", MAKE_IMAGES], env=FOUND).split()[-1]
    else:
        checks = [Check("Cilium on real k3s", "skipped", "CILIUM_CHART names no chart")]
    for fleet in FLEETS:
        checks += _scenario(log, fleet, "real k3s", K3S_PLAYBOOK="site" if whole else "k3s", **given)
    return checks


def _scenario(log: Log, fleet: str, what: str, **variables: str) -> list[Check]:
    """Molecule's scenario on new nodes, which then go."""
    log.run([*NODES, "down", fleet], env=FOUND)
    log.must([*NODES, "up", fleet], env=FOUND)
    try:
        # Molecule has a home of its own; the nodes' keys are in ours.
        checks = molecule.scenario(log, "k3s", NODES=fleet, XDG_CACHE_HOME=str(Path.home() / ".cache"), **variables)
    finally:
        log.run([*NODES, "down", fleet], env=FOUND, tidies_up=True)
    return [Check(f"{what}, nodes {fleet}: {check.name}", check.state, check.reason) for check in checks]


def _require() -> None:
    if os.geteuid():
        raise Skipped("only root can start nodes: they are privileged containers")
    if not shutil.which("go"):
        raise Skipped("there is no Go on this machine to build the stand-in for k3s")
