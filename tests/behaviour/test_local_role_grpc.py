"""Role local with gRPC, whose connections carry many calls at once: front -> echo (3 replicas, health-checked)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from behaviour.load import GrpcLoad
from behaviour.local_mesh import TOOLS, Mesh, new_home
from behaviour.machine import free_port

PYTHON = TOOLS / "sidecar-mesh" / "tools" / "bin" / "python"


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with new_home() as home:
        yield home.mesh()


@pytest.mark.thorough
def test_replicas_come_go_and_restart_without_a_failed_call(mesh: Mesh) -> None:
    port = free_port()
    echo = {
        "name": "echo",
        "command": ["python", "server.py"],
        "directory": "$(APPLICATIONS)/echo-grpc",
        "port": 8081,
        "protocol": "grpc",
        "replicas": 3,
        "health_check": {"interval": "1s"},
    }
    mesh.services = [echo]
    routes = [{"grpc": "api.Echo", "service": "echo"}]
    mesh.fronts = [{"name": "front", "listeners": [{"port": port}], "routes": routes}]
    mesh.must_run()
    with GrpcLoad(port, PYTHON) as load:
        load.wait_until(lambda report: len(report.hostnames()) == 3, "answers of all replicas")
        front = mesh.pids()["front-1.front"]

        # One goes, and the Envoys beside the others are restarted.
        echo["replicas"] = 2
        echo["sidecar"] = {"concurrency": 2}
        play = mesh.must_run()
        assert play.batches("restarted") == [{"echo-1.sidecar"}, {"echo-2.sidecar"}]
        assert play.programs("stopped") == {"echo-3.application", "echo-3.sidecar"}
        begin = load.now
        load.wait_for(200)
        assert sorted(load.report.hostnames(begin)) == ["echo-1", "echo-2"]

        # It comes back, and the other applications are restarted.
        echo["replicas"] = 3
        echo["environment"] = {"SHUTDOWN_GRACE": "5"}
        play = mesh.must_run()
        assert play.programs("started") == {"echo-3.application", "echo-3.sidecar"}
        assert play.batches("restarted") == [{"echo-1.application"}, {"echo-2.application"}]
        begin = load.now
        load.wait_until(lambda report: len(report.hostnames(begin)) == 3, "answers of all replicas again")
        load.wait_for(200)
    load.report.must_be_whole(1000)
    assert mesh.pids()["front-1.front"] == front
