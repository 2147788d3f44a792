"""A sidecar knows the services it calls, not the mesh: in one of 500 services it is what it is in one of 10."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import proxy_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Envoy
from behaviour.envoys import START_SECONDS
from behaviour.machine import BIN, wait_until

CALLED = {"orders": "dns", "stock": "eds", "prices": "static"}
"""The services that the one under test calls, and how it finds them."""
SMALL, LARGE = 10, 500
TOLERANCE = 0.05

Item = dict[str, Any]


@dataclass(frozen=True)
class Sidecar:
    """The same service's sidecar in a mesh of some size: its files, its clusters and its memory as it runs."""

    files: dict[str, str]
    clusters: set[str]
    allocated: int
    resident: int


def services(size: int) -> list[Item]:
    """A shop, the three services it calls, and others, each of which calls the next."""
    upstreams = [{"service": name, "port": 9001 + number} for number, name in enumerate(CALLED)]
    called = [{"name": name, "port": 8080, "replicas": 2, "discovery": how} for name, how in CALLED.items()]
    names = [f"other-{number}" for number in range(size - 1 - len(CALLED))]
    others = [
        {"name": name, "port": 8080, "upstreams": [{"service": following, "port": 9001}]}
        for name, following in zip(names, [*names[1:], "stock"], strict=True)
    ]
    made = [{"name": "shop", "port": 8080, "upstreams": upstreams}, *called, *others]
    return [{"command": ["true"], "replicas": 1, **service} for service in made]


def settings(name: str, folder: Path = Path("/")) -> Item:
    return {"name": name, "engine": "local", "state_path": str(folder)}


def mesh_name() -> str:
    """A name with which no new service takes the address of one that is there, as a few in a mesh of 500 do."""
    while True:
        name = f"scale-{secrets.token_hex(4)}"
        small, large = (
            {item["name"]: item["address"] for item in build_model(services(size), None, settings(name))["replicas"]}
            for size in (SMALL, LARGE)
        )
        if small.items() <= large.items():
            return name


def run(name: str, size: int, folder: Path) -> Sidecar:
    model = build_model(services(size), None, settings(name, folder))
    proxy = next(proxy for proxy in model["proxies"] if proxy["workload"] == "shop")
    files = proxy_files(proxy)
    config = Path(proxy["paths"]["config"])
    config.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (config / file).write_text(text)
    where = f"{proxy['addresses']['admin']}:{proxy['envoy']['admin_port']}"
    with Envoy.found(str(BIN / "envoy")) as envoy, (folder / f"{size}.log").open("wb") as log:
        process = subprocess.Popen([envoy.program, *arguments(proxy, "shop-1")], stdout=log, stderr=log)
        try:
            wait_until(lambda: _ready(where, process), f"the sidecar in a mesh of {size} is ready", START_SECONDS)
            clusters = {line.partition("::")[0] for line in admin.request(where, "/clusters").splitlines()}
            allocated = int(json.loads(admin.request(where, "/memory"))["allocated"])
            resident = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        finally:
            process.kill()
            process.wait()
    return Sidecar(files, clusters, allocated, resident)


def _ready(where: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None
    with contextlib.suppress(OSError):
        return admin.request(where, "/ready") == "LIVE\n"
    return False


def test_a_sidecar_is_the_same_in_a_mesh_of_10_and_of_500_services(tmp_path: Path) -> None:
    name = mesh_name()
    small, large = (run(name, size, tmp_path) for size in (SMALL, LARGE))
    assert small.files == large.files
    assert small.clusters == large.clusters == {"local_app", "envoy_admin", *CALLED}
    assert large.allocated == pytest.approx(small.allocated, rel=TOLERANCE)
    assert large.resident == pytest.approx(small.resident, rel=TOLERANCE)
    print(
        f"allocated {small.allocated} and {large.allocated} bytes, resident {small.resident} and {large.resident} pages"
    )
