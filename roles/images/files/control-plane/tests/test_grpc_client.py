# SPDX-License-Identifier: GPL-3.0-or-later
"""gRPC's own xDS client, which nobody here wrote: it finds a service through the server's resources."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from mesh import ADDRESS, Resources, Server, cluster, endpoints, manager, routes, wait_until

# Reads names of services, answers what is said there; a process of its own, for gRPC reads its settings once.
CLIENT = """
import sys, grpc
channel = grpc.insecure_channel("xds:///echo.mesh")
call = channel.unary_unary("/test.Echo/Echo")
for line in sys.stdin:
    try:
        print(call(b"", timeout=float(line)).decode(), flush=True)
    except grpc.RpcError as exc:
        print(exc.code().name, exc.details(), flush=True)
"""


def mesh(ports: dict[str, int], to: str) -> Resources:
    return {
        "clusters": {name: cluster(name) for name in ports},
        "endpoints": {name: localities(name, port) for name, port in ports.items()},
        "listeners": {"echo.mesh": {"name": "echo.mesh", "api_listener": {"api_listener": manager("echo")}}},
        "routes": {"echo": routes("echo", to)},
    }


def localities(name: str, port: int) -> dict[str, Any]:
    """gRPC uses no endpoints without a locality that has a weight."""
    made = endpoints(name, port)
    made["endpoints"][0] |= {"locality": {"zone": "z"}, "load_balancing_weight": 1}
    return made


class Echo:
    """A gRPC server that answers with its name."""

    def __init__(self, name: str) -> None:
        handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: name.encode())
        self._server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler})])
        self.port = self._server.add_insecure_port(f"{ADDRESS}:0")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None)


class Client:
    def __init__(self, server: Server, folder: Path) -> None:
        bootstrap = {
            "xds_servers": [
                {
                    "server_uri": f"{ADDRESS}:{server.port}",
                    "channel_creds": [{"type": "insecure"}],
                    "server_features": ["xds_v3"],
                }
            ],
            "node": {"id": "grpc"},
        }
        self._log = (folder / "client.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def call(self, seconds: float = 10) -> str:
        """What answered."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[tuple[Server, Client, Echo, Echo]]:
    server, b, c = Server(tmp_path), Echo("b"), Echo("c")
    server.write(grpc=mesh({"b": b.port}, "b"))
    server.start()
    client = Client(server, tmp_path)
    yield server, client, b, c
    for each in (client, server, b, c):
        each.stop()


def test_calls_go_where_the_resources_say(parts: tuple[Server, Client, Echo, Echo]) -> None:
    server, client, b, c = parts
    assert client.call() == "b"
    found = server.connected("grpc")
    assert (found["protocol"], found["synced"]) == ("sotw", True)
    assert all(item["nack"] is None for item in found["types"].values())

    server.write(grpc=mesh({"b": c.port}, "b"))
    wait_until(lambda: client.call() == "c", "calls go to the new endpoint")
    server.write(grpc=mesh({"b": b.port, "c": c.port}, "b"))
    wait_until(lambda: client.call() == "b", "and back")
    server.write(grpc=mesh({"b": b.port, "c": c.port}, "c"))
    wait_until(lambda: client.call() == "c", "calls go to the other cluster")


def test_calls_go_on_without_the_server_and_changes_come_after_it(parts: tuple[Server, Client, Echo, Echo]) -> None:
    server, client, b, c = parts
    assert client.call() == "b"
    server.kill()
    assert [client.call() for _each in range(20)] == ["b"] * 20
    server.start()
    server.write(grpc=mesh({"b": b.port, "c": c.port}, "c"))
    wait_until(lambda: client.call() == "c", "the change is there")


def test_a_name_that_is_gone(parts: tuple[Server, Client, Echo, Echo]) -> None:
    server, client, b, _c = parts
    assert client.call() == "b"
    wanted = mesh({"b": b.port}, "b")
    server.write(grpc=wanted | {"listeners": {}})
    wait_until(lambda: client.call().startswith("UNAVAILABLE"), "the name is gone")
    server.write(grpc=wanted)
    wait_until(lambda: client.call() == "b", "the name is there")


def test_a_resource_that_the_client_refuses(parts: tuple[Server, Client, Echo, Echo]) -> None:
    server, client, b, _c = parts
    assert client.call() == "b"
    wanted = mesh({"b": b.port}, "b")
    wanted["clusters"]["b"]["lb_policy"] = "MAGLEV"
    server.write(grpc=wanted)
    nack = wait_until(lambda: server.connected("grpc")["types"]["clusters"]["nack"], "a NACK")
    assert nack["resources"] == ["b"]
    assert client.call() == "b"
    assert server.metric('nacks_total{type="clusters"}') == 1
