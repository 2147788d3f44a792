"""Bare nodes, and k3s on them: the stand-in for it always, and the real one where its parts are given."""

from __future__ import annotations

import os
import shutil

from parts import molecule
from parts.running import BIN, Check, Log, Skipped, pytest

NODES = [BIN / "python", "-m", "nodes"]
FOUND = {"PYTHONPATH": "tests"}
STAND_IN = "import nodes.stand_in; print(nodes.stand_in.build())"
GIVEN = ("K3S_BINARY", "CILIUM_CHART", "K3S_IMAGES")
"""What names the real parts: a binary, the chart's .tgz, and folders of image archives with colons between them. Beside
these, CILIUM_VALUES (a file), HELM (a binary) and NODES_FILES (a folder, copied onto every node) may be needed."""


def run(log: Log) -> list[Check]:
    _require()
    checks = pytest(log, "nodes", ["tests/nodes"], python=BIN / "python")
    stand_in = log.must([BIN / "python", "-c", STAND_IN], env=FOUND).split()[-1]
    for fleet in ("one", "pair", "ha"):
        checks += _scenario(log, fleet, "the stand-in for k3s", K3S_STAND_IN=stand_in)
    return checks


def real(log: Log) -> list[Check]:
    """The whole of playbook site."""
    missing = [name for name in GIVEN if name not in os.environ]
    if missing:
        raise Skipped(f"real k3s and Cilium are in no registry; name them in {', '.join(missing)}")
    _require()
    given = {name: os.environ[name] for name in (*GIVEN, "CILIUM_VALUES", "HELM") if name in os.environ}
    checks = []
    for fleet in ("one", "pair", "ha"):
        checks += _scenario(log, fleet, "real k3s and Cilium", K3S_PLAYBOOK="site", **given)
    return checks


def _scenario(log: Log, fleet: str, what: str, **variables: str) -> list[Check]:
    """Molecule's scenario on new nodes, which then go."""
    log.run([*NODES, "down", fleet], env=FOUND)
    log.must([*NODES, "up", fleet], env=FOUND)
    try:
        checks = molecule.scenario(log, "k3s", NODES=fleet, **variables)
    finally:
        log.run([*NODES, "down", fleet], env=FOUND)
    return [Check(f"{what}, nodes {fleet}: {check.name}", check.state, check.reason) for check in checks]


def _require() -> None:
    if os.geteuid():
        raise Skipped("only root can start nodes: they are privileged containers")
    if not shutil.which("go"):
        raise Skipped("there is no Go on this machine to build the stand-in for k3s")
