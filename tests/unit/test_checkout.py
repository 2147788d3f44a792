# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkout as a collection: found by its name, and described the same way everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MESH = Path("ansible_collections", "sidecar", "mesh")


@pytest.fixture
def stale_home(tmp_path: Path) -> Path:
    """A home with an older copy of the collection, whose filter is another."""
    filters = tmp_path / ".ansible" / "collections" / MESH / "plugins" / "filter"
    filters.mkdir(parents=True)
    (filters / "mesh_model.py").write_text("class FilterModule:\n    def filters(self):\n        return {}\n")
    return tmp_path


def run(*command: str | Path, home: Path) -> str:
    environment = {"HOME": str(home), "PATH": f"{BIN}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_clone_finds_itself_by_name_before_an_older_copy(stale_home: Path) -> None:
    page = run(BIN / "ansible-doc", "--type", "filter", "--json", "sidecar.mesh.mesh_model", home=stale_home)
    found = Path(json.loads(page)["sidecar.mesh.mesh_model"]["doc"]["filename"]).resolve()
    assert found.is_relative_to(ROOT / "plugins" / "filter")


def test_a_clone_runs_its_own_filters(stale_home: Path) -> None:
    expression = "{{ ([{'name': 'a', 'port': 80}] | sidecar.mesh.mesh_model).services | map(attribute='name') | list }}"
    told = run(BIN / "ansible", "localhost", "-m", "ansible.builtin.debug", "-a", f"msg={expression}", home=stale_home)
    assert '"a"' in told or "- a" in told


def test_the_link_to_the_checkout_is_relative() -> None:
    assert (ROOT / ".collections" / MESH).readlink() == Path("..", "..", "..")


def test_requirements_are_the_dependencies_of_the_collection() -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    requirements = yaml.safe_load((ROOT / "requirements.yml").read_text())
    assert {item["name"]: item["version"] for item in requirements["collections"]} == galaxy["dependencies"]


def test_the_oldest_ansible_is_the_same_for_pip_and_for_galaxy() -> None:
    runtime = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())
    assert f"ansible-core{runtime['requires_ansible']}\n" in (ROOT / "requirements.txt").read_text()


@pytest.mark.parametrize("version", range(17, 22))
def test_what_sanity_ignores_on_a_core_it_ignores_on_newer_ones(version: int) -> None:
    assert set(ignored(version)) <= set(ignored(21))


def ignored(version: int) -> list[str]:
    return (ROOT / "tests" / "sanity" / f"ignore-2.{version}.txt").read_text().splitlines()
