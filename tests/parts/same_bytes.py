"""The same inventories make the same bytes: with every supported Python, and through the filters on the oldest and the
newest supported ansible-core."""

from __future__ import annotations

import json
from pathlib import Path

from parts.running import ROOT, Check, Log, own_venv, temporary_folder, verdict
from parts.sanity import PYTHONS, choose_cores, core_tools, find_pythons

GOLDEN = ROOT / "tests" / "golden"
PLAYBOOK = GOLDEN / "render.yml"
HASH_SEEDS = ("0", "1", "4711")


def run(log: Log) -> list[Check]:
    found = find_pythons()
    expected = ""
    checks = []
    for version in PYTHONS:
        name = f"Python {version}"
        if version not in found:
            checks.append(Check(name, "skipped", "it is neither on PATH nor in pyenv"))
            continue
        python = own_venv(log, f"pyyaml-python-{version}", ["pyyaml"], python=found[version]) / "python"
        for seed in HASH_SEEDS:
            digest = log.must([python, GOLDEN / "cases.py"], env={"PYTHONHASHSEED": seed}).split()[-1]
            expected = expected or digest
            checks.append(verdict(f"{name}, hash seed {seed}", digest == expected, f"{digest} is not {expected}"))
    cores, skipped = choose_cores(found)
    for core in cores:
        tools = core_tools(log, core, found)
        digest = _through_filters(log, tools)
        checks.append(verdict(f"{tools.parent.name}", digest == expected, f"{digest} is not {expected}"))
    return checks + skipped


def _through_filters(log: Log, tools: Path) -> str:
    with temporary_folder() as folder:
        cases = folder / "cases.json"
        cases.write_text(log.must([tools / "python", GOLDEN / "cases.py", "--json"]).splitlines()[-1])
        made = folder / "made"
        made.mkdir()
        variables = {"folder": str(made), "ansible_python_interpreter": str(tools / "python")}
        log.must(
            [tools / "ansible-playbook", "-i", "localhost,", "-e", f"@{cases}", "-e", json.dumps(variables), PLAYBOOK],
            env={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_HOME": str(folder / "ansible")},
        )
        return log.must([tools / "python", GOLDEN / "cases.py", made]).split()[-1]
