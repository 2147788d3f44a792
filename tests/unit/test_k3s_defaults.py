"""Playbooks need some of role k3s' defaults where the role did not run."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
USED = re.compile(r"(k3s_\w+) \| default\(('[^']*'|\[[^\]]*\])")


def test_playbooks_have_the_defaults_of_the_role() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "k3s" / "defaults" / "main.yml").read_text())
    texts = [path.read_text() for path in sorted((ROOT / "playbooks").rglob("*.yml"))]
    used = {(name, str(yaml.safe_load(value))) for text in texts for name, value in USED.findall(text)}
    assert {name for name, _value in used} >= {"k3s_context", "k3s_kubeconfig", "k3s_network", "k3s_server_group"}
    assert {(name, value) for name, value in used if value != str(defaults[name])} == set()


def test_the_version_of_the_inventories_is_that_of_the_role() -> None:
    defaults = yaml.safe_load((ROOT / "roles" / "k3s" / "defaults" / "main.yml").read_text())
    for name in ("k3s_single", "k3s_ha"):
        cluster = yaml.safe_load((ROOT / "inventory" / name / "group_vars" / "all" / "cluster.yml").read_text())
        assert cluster["k3s_version"] == defaults["k3s_version"]
