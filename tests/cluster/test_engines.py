"""One inventory moves from this machine to a cluster and back, and is nowhere twice."""

from __future__ import annotations

from typing import Any

import pytest
from behaviour.local_mesh import get, new_home
from behaviour.machine import free_port, wait_until

from cluster import images
from cluster.handle import Cluster
from cluster.mesh import Mesh, ask

APPLICATION = """
const { PORT, BIND_ADDRESS } = process.env
require('node:http').createServer((request, response) => response.end('hello')).listen(PORT, BIND_ADDRESS)
process.on('SIGTERM', () => process.exit())
"""


@pytest.mark.thorough
def test_a_mesh_changes_its_engine(cluster: Cluster, namespace: str) -> None:
    with new_home() as home:
        here = home.mesh()
        there = Mesh(cluster, namespace, home.folder)
        port = free_port()
        here.services = [both_engines("hello")]
        routes = [{"prefix": "/", "service": "hello"}]
        here.fronts = [{"name": "front", "listeners": [{"port": port}], "routes": routes}]
        here.settings |= {
            "mesh_kubeconfig": str(cluster.kubeconfig),
            "mesh_namespace": namespace,
            "mesh_envoy_image": images.envoy(images.NEWEST),
        }
        here.must_run("mesh")
        assert get(port)[2] == "hello"

        here.settings["mesh_engine"] = "kubernetes"
        assert "mesh_former: not set, but this inventory ran its mesh elsewhere before" in here.run("mesh").failure
        assert get(port)[2] == "hello"
        here.settings["mesh_former"] = "remove"
        here.must_run("mesh")
        there.settle()
        assert {ask(pod, port=port) for pod in there.pods("front")} == {"hello"}
        assert not here.pids()
        assert not here.state.exists()

        here.settings["mesh_engine"] = "local"
        here.must_run("mesh")
        assert get(port)[2] == "hello"
        wait_until(lambda: not [name for name in there.objects() if "hello" in name or "front" in name], "it left", 90)
        here.must_run("reset")


def both_engines(name: str) -> dict[str, Any]:
    program = ["node", "--eval", APPLICATION]
    pod = {"command": program, "security_context": {"runAsUser": 10001}}
    return {"name": name, "image": images.NODE, "command": program, "port": 8081, "pod": pod}
