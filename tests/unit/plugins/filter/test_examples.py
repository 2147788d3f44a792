"""Runs the examples of every filter's page, as tasks, and compares what they show with what the page says.

A comment that begins with ``=>``, below a debug task, is YAML of what the task shows. All pages run at once: each is a
host of one play, so that it has facts of its own, and a failed example does not stop the others.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
PAGES = sorted((ROOT / "plugins" / "filter").glob("*.yml"))
Task = dict[str, Any]

_NAME = re.compile(r"^\s*- name: (.+)$")
_SHOWN = re.compile(r"^\s*# =>(.*)$")
_MORE = re.compile(r"^\s*# ?(.*)$")
DEBUG = "ansible.builtin.debug"
BLOCKS = ("block", "rescue", "always")


def examples(page: Path) -> str:
    return str(yaml.safe_load(page.read_text())["EXAMPLES"])


def names(tasks: list[Task]) -> Iterator[str]:
    for task in tasks:
        yield task["name"]
        for block in BLOCKS:
            yield from names(task.get(block, []))


def expectations(text: str) -> dict[str, Any]:
    """What tasks are said to show, by the tasks' names."""
    known = list(names(yaml.safe_load(text)))
    assert len(known) == len(set(known)), known
    said: dict[str, list[str]] = {}
    task, lines = "", None
    for line in text.splitlines():
        if (match := _NAME.match(line)) and match[1] in known:
            task, lines = match[1], None
        elif match := _SHOWN.match(line):
            lines = said.setdefault(task, [])
            lines.append(match[1].strip())
        elif lines is not None and (match := _MORE.match(line)):
            lines.append(match[1])
        else:
            lines = None
    return {name: yaml.safe_load("\n".join(lines)) for name, lines in said.items()}


def checked(tasks: list[Task], shown: dict[str, Any]) -> list[Task]:
    """The tasks, each that is said to show something followed by a task that fails unless it does."""
    found: list[Task] = []
    for task in tasks:
        found.append({key: checked(value, shown) if key in BLOCKS else value for key, value in task.items()})
        if task["name"] in shown:
            found.append(comparison(task, shown.pop(task["name"])))
    return found


def comparison(task: Task, expected: Any) -> Task:
    return {
        "name": f"Compare: {task['name']}",
        "ansible.builtin.assert": {
            "that": "_shown == _expected",
            "fail_msg": "{{ {'shown': _shown, 'expected': _expected} | to_json }}",
        },
        "vars": {**task.get("vars", {}), "_shown": task[DEBUG]["msg"], "_expected": expected},
    }


def run(folder: Path) -> dict[str, list[str]]:
    """The failures of each page."""
    for page in PAGES:
        shown = expectations(examples(page))
        tasks = checked(yaml.safe_load(examples(page)), shown)
        assert not shown, f"{page.name}: no task is called {', '.join(shown)}"
        home = folder / page.stem
        home.mkdir()
        (home / "tasks.yml").write_text(yaml.safe_dump(tasks, sort_keys=False))
    hosts = {page.stem: {"playbook_dir": str(folder / page.stem)} for page in PAGES}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (folder / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": local}}))
    include = {"name": "Run the examples", "ansible.builtin.include_tasks": "{{ inventory_hostname }}/tasks.yml"}
    play = {
        "name": "Examples",
        "hosts": "all",
        "gather_facts": False,
        "strategy": "ansible.builtin.free",
        "tasks": [include],
    }
    (folder / "playbook.yml").write_text(yaml.safe_dump([play]))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", "playbook.yml"],
        cwd=folder,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_FORKS": "10"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    report = json.loads(done.stdout)
    results = [task["hosts"] | {"": task["task"]["name"]} for task in report["plays"][0]["tasks"]]
    return {
        host: [f"{hosts['']}: {hosts[host]['msg']}" for hosts in results if host in hosts and hosts[host].get("failed")]
        if counts["failures"] or counts["unreachable"]
        else []
        for host, counts in report["stats"].items()
    }


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    return run(tmp_path_factory.mktemp("examples"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_do_what_they_say(page: Path, failures: dict[str, list[str]]) -> None:
    assert failures[page.stem] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_shows_results_of_its_filter(page: Path) -> None:
    text = examples(page)
    assert expectations(text)
    assert f"| sidecar.mesh.{page.stem}" in text


def test_a_wrong_example_is_found() -> None:
    text = "- name: Show\n  ansible.builtin.debug:\n    msg: a\n  # =>\n  # - b: 1\n  #   c: 2\n\n# no part of it\n"
    assert expectations(text) == {"Show": [{"b": 1, "c": 2}]}
    compare = checked(yaml.safe_load(text), expectations(text))[-1]
    assert compare["vars"] == {"_shown": "a", "_expected": [{"b": 1, "c": 2}]}
