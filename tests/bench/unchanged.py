"""What a run takes that changes nothing: site.yml on the demo's inventory, again.

Uses the demo's ports, so the demo must not run meanwhile. The floor is a play of as many tasks on the same inventory
that do nothing: a ping for each task that ran, and a skipped one for each that was skipped.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

from behaviour.local_mesh import TOOLS

from bench.measuring import BIN, ROOT, Row, processor_time, run

REPETITIONS = 3
INVENTORY = ROOT / "inventory" / "local"


def rows() -> list[Row]:
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as folder:
        paths = json.dumps({"local_state_path": folder, "local_data_path": str(TOOLS)})
        play = [BIN / "ansible-playbook", "--inventory", INVENTORY, "--extra-vars", paths]
        try:
            run([*play, "playbooks/site.yml"])
            recap = run([*play, "playbooks/site.yml"])
            empty = Path(folder) / "empty.yml"
            ran, skipped = (int(_counted(recap, name)) for name in ("ok", "skipped"))
            empty.write_text(_empty_play(ran, skipped))
            ours, floor = (
                min(processor_time(lambda: run([*play, book])) for _repetition in range(REPETITIONS))  # noqa: B023
                for book in ("playbooks/site.yml", empty)
            )
        finally:
            run([*play, "playbooks/reset.yml"])
    what = f"site.yml on the demo, nothing to change ({ran} tasks run, {skipped} skipped)"
    return [Row(what, ours, "a play of as many pings", floor, 2)]


def _counted(recap: str, name: str) -> str:
    found = re.search(rf"\b{name}=(\d+)", recap)
    if found is None or "changed=0" not in recap:
        raise SystemExit(f"The second run changed something:\n{recap}")
    return found[1]


def _empty_play(ran: int, skipped: int) -> str:
    tasks = [{"name": f"Task {number}", "ansible.builtin.ping": None} for number in range(ran)]
    tasks += [{"name": f"Skipped {number}", "ansible.builtin.ping": None, "when": False} for number in range(skipped)]
    return json.dumps([{"name": "Do nothing", "hosts": "localhost", "gather_facts": False, "tasks": tasks}])
