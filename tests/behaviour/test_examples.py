"""The examples of the documentation, as the real Envoy sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Cache, Config, Envoy, validate
from behaviour.certificates import Authority
from behaviour.machine import BIN, ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> Iterator[Any]:
    """Inventories of the pages, in the order of their lines."""
    for page in PAGES:
        for block in re.finditer(r"^```yaml\n(.*?)^```$", text := page.read_text(), re.MULTILINE | re.DOTALL):
            data = yaml.safe_load(block[1])
            if isinstance(data, dict) and "mesh_services" in data:
                yield pytest.param(data, id=f"{page.name}:{text.count(chr(10), 0, block.start()) + 2}")


@pytest.mark.parametrize("inventory", list(examples()))
def test_envoy_accepts_the_examples(inventory: dict[str, Any], tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    settings = {name.removeprefix("mesh_"): value for name, value in inventory.items()}
    services = [{"command": ["true"], **service} for service in settings.pop("services")]
    fronts = settings.pop("front_proxies", [])
    settings.pop("checks", None)
    settings |= {"engine": "local", "state_path": str(tmp_path), "ca_file": str(authority.path)}
    model = build_model(services, fronts, settings)
    for name in {name for proxy in model["proxies"] for name in proxy["secrets"]}:
        authority.issue(tmp_path / "certificates" / name, name)
    configs = []
    for proxy, made in zip(model["proxies"], mesh_files(model), strict=True):
        files = {name: re.sub(r"/etc/ssl/\S+\.crt", str(authority.path), text) for name, text in made["files"].items()}
        configs.append(Config(proxy["name"], files, arguments(proxy, proxy["name"])))
    with Envoy.found(str(BIN / "envoy")) as envoy:
        report = validate(configs, envoy, Cache(None), os.cpu_count() or 1)
    assert (report.problems, report.unchecked) == ([], [])
    assert report.validated == [config.name for config in configs]
