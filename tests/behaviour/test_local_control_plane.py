"""A mesh on this machine whose Envoys a control plane sends their configuration: to and fro between it and files, and
without it. What it does as every mesh does is in test_local_role.

    front -> a (2 replicas) -> b (2 replicas)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from behaviour.load import Load
from behaviour.local_mesh import TOOLS, Mesh, express, get, greeting, new_home
from behaviour.machine import free_port, started_with, wait_until

PROGRAM = "control-plane"
AWAY_SECONDS = 120
START_SECONDS = 30
"""In which an Envoy has given up on a control plane that is away, and is ready without it."""

Item = dict[str, Any]


@pytest.fixture(scope="module")
def running() -> Iterator[Mesh]:
    with new_home() as home:
        mesh = home.mesh()
        mesh.settings["mesh_config_delivery"] = "ads"
        mesh.services = [
            express("a", replicas=2, upstreams=[{"service": "b", "port": 9001}]),
            express("b", replicas=2),
        ]
        routes = [{"prefix": "/", "service": "a"}]
        mesh.fronts = [{"name": "front", "listeners": [{"port": free_port()}], "routes": routes}]
        mesh.must_run()
        mesh.keep()
        yield mesh


@pytest.fixture
def mesh(running: Mesh) -> Mesh:
    running.back()
    return running


def port(mesh: Mesh) -> int:
    return int(mesh.front()["listeners"][0]["port"])


def supervisorctl(mesh: Mesh, *command: str) -> None:
    program = TOOLS / "sidecar-mesh" / "tools" / "bin" / "supervisorctl"
    subprocess.run([program, "-s", f"unix://{mesh.state}/supervisor.sock", *command], check=True, capture_output=True)


def connected(mesh: Mesh) -> dict[str, Item]:
    """What the control plane says of each Envoy."""
    arguments = started_with(mesh.pids()[PROGRAM])[0]
    address = arguments[arguments.index("--status") + 1]
    with urllib.request.urlopen(f"http://{address}/status", timeout=10) as answer:
        return {entry["node"]: entry for entry in json.load(answer)["connected"]}


def synced(mesh: Mesh) -> set[str]:
    try:
        return {name for name, entry in connected(mesh).items() if entry["synced"]}
    except (OSError, KeyError):
        return set()


def envoys(mesh: Mesh) -> set[str]:
    return {name.rpartition(".")[0] for name in mesh.envoys()}


@pytest.mark.thorough
def test_from_it_to_files_and_back_no_request_fails_that_reaches_the_mesh(mesh: Mesh) -> None:
    with Load(port(mesh)) as load:
        load.wait_for(200)
        for delivery, sent in (("files", set()), ("ads", envoys(mesh))):
            mesh.settings["mesh_config_delivery"] = delivery
            # What changes at the same time arrives, too.
            mesh.front()["routes"][0]["timeout"] = f"{len(sent) + 3}s"
            mesh.must_run()
            assert (PROGRAM in mesh.pids()) == bool(sent)
            assert (mesh.state / PROGRAM).exists() == bool(sent)
            assert not sent or synced(mesh) == sent
            assert f'"timeout": "{len(sent) + 3}s"' in mesh.admin("front-1", "/config_dump")
            load.wait_for(200)
            assert mesh.must_run().changed == []
        load.wait_for(max(200, 10_000 - load.report.count))
    assert load.report.count >= 10_000
    # Nothing on this machine stands in for the front's first replica while it is restarted.
    assert [failure for failure in load.report.failures if failure.reason.startswith("status")] == []


def test_a_change_is_with_envoys_at_once(mesh: Mesh) -> None:
    wait_until(lambda: synced(mesh) == envoys(mesh), "every Envoy is connected")
    mesh.front()["routes"].insert(0, {"prefix": "/b", "service": "b"})
    play = mesh.must_run()
    assert play.programs("restarted") == set()
    assert get(port(mesh), "/b")[2] == f"{greeting('b')}\n"
    assert all(entry["content"] for entry in connected(mesh).values())


def test_what_cannot_be_sent_is_told_and_put_back(mesh: Mesh) -> None:
    before = mesh.files(), mesh.pids()
    mesh.settings["local_validate"] = False
    mesh.front()["upstreams"] = [{"service": "a", "envoy_patch": {"cluster": {"lb_polizy": "RANDOM"}}}]
    with Load(port(mesh)) as load:
        load.wait_for(50)
        play = mesh.run()
        assert play.code
        assert "control plane: proxy front-1" in play.failure
        assert "lb_polizy" in play.failure
        load.wait_for(50)
    load.report.must_be_whole(100)
    assert (mesh.files(), mesh.pids()) == before


def test_killed_it_comes_back_and_no_request_fails(mesh: Mesh) -> None:
    wait_until(lambda: synced(mesh) == envoys(mesh), "every Envoy is connected")
    before = mesh.pids()
    with Load(port(mesh)) as load:
        load.wait_for(100)
        os.kill(before[PROGRAM], signal.SIGKILL)
        wait_until(lambda: synced(mesh) == envoys(mesh), "every Envoy is connected again", 30)
        load.wait_for(100)
    load.report.must_be_whole(200)
    assert {name: pid for name, pid in mesh.pids().items() if name != PROGRAM} == {
        name: pid for name, pid in before.items() if name != PROGRAM
    }
    assert mesh.must_run().changed == []


@pytest.mark.thorough
def test_two_minutes_without_it_while_a_replica_starts(mesh: Mesh) -> None:
    every = envoys(mesh)
    with Load(port(mesh)) as load:
        load.wait_for(100)
        supervisorctl(mesh, "stop", PROGRAM)
        gone = load.now
        # Its callers find out that it is away by trying, as with every replica that dies.
        supervisorctl(mesh, "restart", "b-1.sidecar")
        lost = len(load.report.failures)
        wait_until(lambda: ready(mesh, "b-1"), "b-1 is ready without it", START_SECONDS)
        assert "fallback" in json.loads(mesh.admin("b-1", "/server_info"))["command_line_options"]["config_path"]
        told = "\n".join(mesh.status())
        assert "b-1: is not connected to the control plane, and follows its folder" in told
        load.wait_until(lambda _report: load.now > gone + AWAY_SECONDS or None, "two minutes", AWAY_SECONDS * 2)
        assert len(load.report.failures) == lost

        # Back again: those that were connected are, and the one that reads files takes changes from these.
        mesh.service("b")["sidecar"] = {"routes": [{"prefix": "/", "response_headers": {"set": {"x-b": "9"}}}]}
        mesh.must_run()
        assert synced(mesh) == every - {"b-1"}
        for replica in ("b-1", "b-2"):
            assert '"x-b"' in mesh.admin(replica, "/config_dump?resource=dynamic_route_configs")
        load.wait_for(max(200, 10_000 - load.report.count))
        assert len(load.report.failures) == lost
        supervisorctl(mesh, "restart", "b-1.sidecar")
    wait_until(lambda: synced(mesh) == every, "b-1 is connected once it is started again", START_SECONDS)


def ready(mesh: Mesh, replica: str) -> bool:
    try:
        return mesh.admin(replica, "/ready").strip() == "LIVE"
    except OSError:
        return False
