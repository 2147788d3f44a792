"""Damaged inventories as a user gives them to Ansible: the message, no traceback, and nothing written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from properties.damage import damaged
from properties.inventories import Inventory, inventories, model_of
from properties.test_inventories import every

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"
MOST = 12
TEMPLATES = ("{{", "{%", "{#")

FILTER = """
- name: Tell what is wrong with every inventory
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Build the model
      ansible.builtin.set_fact:
        never: >-
          {{ item.mesh_services | default([]) | sidecar.mesh.mesh_model(
            item.mesh_front_proxies | default([]), engine=item.mesh_engine | default('local'),
            name=item.mesh_name | default('mesh'), dns=item.mesh_dns | default({})) }}
      loop: "{{ damaged }}"
      loop_control:
        label: damaged
      ignore_errors: true
      register: told
    - name: Keep what it said
      ansible.builtin.copy:
        content: "{{ told.results | map(attribute='msg', default='accepted') | to_json }}"
        dest: "{{ folder }}/told.json"
        mode: "0600"
"""

ROLE = """
- name: Run a mesh
  hosts: localhost
  connection: local
  gather_facts: false
  roles:
    - role: sidecar.mesh.local
      vars:
        local_services: "{{ inventory.mesh_services }}"
        local_front_proxies: "{{ inventory.mesh_front_proxies }}"
        local_state_path: "{{ folder }}/state"
        local_data_path: "{{ folder }}/data"
"""


@pytest.fixture(scope="module")
def wrong() -> list[tuple[Inventory, ModelError]]:
    """Damaged inventories that can be written as JSON, without templates, and what the model says to them."""
    found: list[tuple[Inventory, ModelError]] = []

    def look(inventory: Inventory) -> None:
        settings = ("mesh_services", "mesh_front_proxies", "mesh_engine", "mesh_name", "mesh_dns")
        given = {name: value for name, value in inventory.items() if name in settings}
        try:
            text = json.dumps(given, allow_nan=False, ensure_ascii=False).encode().decode()
        except (TypeError, ValueError, RecursionError):
            return
        if len(found) == MOST or len(text) > 5000 or any(sign in text for sign in TEMPLATES):
            return
        given = json.loads(text)
        try:
            model_of({"mesh_engine": "local", **given})
        except ModelError as error:
            found.append((given, error))

    every(damaged(inventories()), 0, 100, look)
    assert len(found) == MOST
    return found


def play(folder: Path, text: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    (folder / "play.yml").write_text(text)
    variables |= {"folder": str(folder), "ansible_python_interpreter": sys.executable}
    (folder / "variables.json").write_text(json.dumps(variables))
    return subprocess.run(
        [PLAYBOOK, "-i", "localhost,", "-e", f"@{folder}/variables.json", folder / "play.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_HOME": str(folder / "ansible"), "XDG_STATE_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_filter_says_every_problem_and_shows_no_traceback(
    wrong: list[tuple[Inventory, ModelError]], tmp_path: Path
) -> None:
    done = play(tmp_path, FILTER, damaged=[inventory for inventory, _error in wrong])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    told = json.loads((tmp_path / "told.json").read_text())
    assert len(told) == len(wrong)
    for said, (_inventory, error) in zip(told, wrong, strict=True):
        assert [problem for problem in error.problems if problem not in said] == [], said


def test_the_role_refuses_it_and_writes_nothing(tmp_path: Path) -> None:
    service = {"name": "a", "command": ["true"], "port": 8081, "upstreams": [{"service": "b", "port": 9001}]}
    twice = {"name": "a", "port": None, "protocl": "http"}
    inventory = {"mesh_services": [service, twice], "mesh_front_proxies": [{"name": 7}]}
    done = play(tmp_path, ROLE, inventory=inventory)
    output = done.stdout + done.stderr
    assert done.returncode == 2, output
    assert "Traceback" not in output
    assert "mesh_services[0].upstreams[0].service: 'b' is not in mesh_services" in output
    assert "mesh_services[1].protocl: unknown key" in output
    assert "mesh_front_proxies[0].name: 7 is not allowed" in output
    assert {path.name for path in tmp_path.iterdir()} <= {"play.yml", "variables.json", "ansible"}
