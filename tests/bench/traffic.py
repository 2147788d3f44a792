"""What a request costs on its way through a front proxy and a sidecar, and how soon a changed route is followed.

The floor is the leanest configuration that does the same, written by hand: a listener, a route, a cluster, an access
log. Both meshes run at the same time, and the requests go to them by turns, so that others on the machine disturb both.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from behaviour.envoys import write
from behaviour.machine import free_port

from bench.measuring import BIN, Row, memory, processor_of, share

ROUNDS, REQUESTS, WARM_UP = 40, 500, 2000
CHANGES = 60
LIMIT_MS = 50
BODY = "x" * 1024

Config = dict[str, Any]


def rows() -> list[Row]:
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as folder, contextlib.ExitStack() as stack:
        start = Processes(Path(folder), stack)
        ours, lean = Way(*_generated(Path(folder) / "ours", start)), Way(*_by_hand(Path(folder) / "lean", start))
        for way in (ours, lean):
            way.send(WARM_UP)
            way.forget()
        for _round in range(ROUNDS):
            for way in (ours, lean):
                way.send(REQUESTS)
        floor = "the leanest config by hand"
        return [
            Row("A request through front and sidecar, p50", ours.share(0.5), floor, lean.share(0.5), 1.10, "µs"),
            Row("the same, p99", ours.share(0.99), floor, lean.share(0.99), 1.10, "µs"),
            Row("Processor time of both proxies for it", ours.processor(), floor, lean.processor(), 1.15, "µs"),
            Row("Memory of both proxies (RSS)", ours.memory(), floor, lean.memory(), 1.15, "MB"),
        ]


def change_rows() -> list[Row]:
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as folder, contextlib.ExitStack() as stack:
        start = Processes(Path(folder), stack)
        port, _pids = _generated(Path(folder) / "ours", start)
        times = sorted(_changes(Path(folder) / "ours", port))
        return [
            Row(
                "A changed route to the first request on it, p50",
                share(times, 0.5) * 1e3,
                "the limit",
                LIMIT_MS,
                1,
                "ms",
            ),
            Row("the same, slowest of 60", times[-1] * 1e3, "the limit", LIMIT_MS, 1, "ms"),
        ]


class Processes:
    """Starts Envoys that end with the stack."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack

    def __call__(self, name: str, *words: str) -> int:
        log = self._stack.enter_context((self._folder / f"{name}.log").open("wb"))
        process = subprocess.Popen([str(BIN / "envoy"), *words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._stack.callback(lambda: (process.kill(), process.wait()))
        return process.pid


class Way:
    """A front proxy's port with the processes behind it, and what requests to it took."""

    def __init__(self, port: int, pids: list[int]) -> None:
        self._pids = pids
        self._times: list[float] = []
        self._connection = connect(port)
        self._start = processor_of(*pids)

    def send(self, count: int) -> None:
        for _request in range(count):
            start = time.perf_counter()
            ask(self._connection)
            self._times.append(time.perf_counter() - start)

    def forget(self) -> None:
        self._times.clear()
        self._start = processor_of(*self._pids)

    def share(self, part: float) -> float:
        return share(sorted(self._times), part) * 1e6

    def processor(self) -> float:
        """Microseconds a request."""
        return (processor_of(*self._pids) - self._start) / len(self._times) * 1e6

    def memory(self) -> float:
        return memory(*self._pids)


def connect(port: int) -> socket.socket:
    """A connection to a front proxy that answers."""
    for _attempt in range(200):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", port), timeout=5)
            if ask(connection).startswith(b"HTTP/1.1 200"):
                return connection
            connection.close()
        time.sleep(0.05)
    raise SystemExit(f"nobody answers on port {port}")


def ask(connection: socket.socket) -> bytes:
    """Head and body of an answer, whose body has BODY's length or stands in its header."""
    connection.sendall(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _rest, body = data.partition(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += _received(connection)
    return data


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise OSError("closed")
    return data


# The mesh as the collection makes it


def _inventory(port: int, folder: Path, version: int) -> Config:
    settings = {"name": folder.name, "engine": "local", "state_path": str(folder)}
    services = [{"name": "web", "port": 8081, "discovery": "static", "command": ["envoy"]}]
    route = {"prefix": "/", "service": "web", "response_headers": {"set": {"x-version": str(version)}}}
    fronts = [
        {
            "name": "front",
            "listeners": [{"port": port}],
            "routes": [route if version else {**route, "response_headers": None}],
        }
    ]
    return build_model(services, fronts, settings)


def _write(model: Config) -> None:
    for proxy in mesh_files(model):
        folder = Path(proxy["folder"])
        for name, text in proxy["files"].items():
            write(folder / name, text)


def _generated(folder: Path, start: Processes) -> tuple[int, list[int]]:
    """Port of the front proxy, and the processes of both proxies."""
    folder.mkdir()
    port = free_port()
    model = _inventory(port, folder, 0)
    _write(model)
    (replica,) = (item for item in model["replicas"] if item["workload"] == "web")
    _application(folder, replica["address"], 8081, start)
    pids = [start(f"ours-{proxy['name']}", *arguments(proxy, proxy["name"])) for proxy in model["proxies"]]
    return port, pids


def _changes(folder: Path, port: int) -> Iterator[float]:
    """Seconds from a changed route's file to the first answer that follows it."""
    connection = connect(port)
    for version in range(1, CHANGES + 1):
        _write(_inventory(port, folder, version))
        start = time.perf_counter()
        expected = f"x-version: {version}\r\n".encode()
        while expected not in ask(connection):
            pass
        yield time.perf_counter() - start
        time.sleep(0.05)


# The same by hand


def _application(folder: Path, address: str, port: int, start: Processes) -> None:
    """An application that answers faster than any proxy: an Envoy without an upstream."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": BODY}}}
    config = {"static_resources": {"listeners": [_listener(address, port, answer, log=False)]}}
    _start_static(folder / "application.json", config, start)


def _by_hand(folder: Path, start: Processes) -> tuple[int, list[int]]:
    folder.mkdir()
    port, sidecar, application = free_port(), free_port(), free_port()
    _application(folder, "127.0.0.1", application, start)
    pids = []
    for name, (here, there) in {"front": (port, sidecar), "sidecar": (sidecar, application)}.items():
        route = {"match": {"prefix": "/"}, "route": {"cluster": "next"}}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": there}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        cluster = {
            "name": "next",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "next", "endpoints": endpoints},
        }
        resources = {"listeners": [_listener("127.0.0.1", here, route, log=True)], "clusters": [cluster]}
        pids.append(_start_static(folder / f"{name}.json", {"static_resources": resources}, start))
    return port, pids


def _start_static(path: Path, config: Config, start: Processes) -> int:
    path.write_text(json.dumps(config))
    words = ("--config-path", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
    return start(f"{path.parent.name}-{path.stem}", *words)


def _listener(address: str, port: int, route: Config, *, log: bool) -> Config:
    extensions = "type.googleapis.com/envoy.extensions"
    logger = {"@type": f"{extensions}.access_loggers.stream.v3.StdoutAccessLog"}
    router = {"@type": f"{extensions}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "lean",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": router}],
        **({"access_log": [{"name": "stdout", "typed_config": logger}]} if log else {}),
    }
    return {
        "name": f"port_{port}",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
