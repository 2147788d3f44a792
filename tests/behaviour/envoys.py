"""A mesh of real Envoys without the role: folders as mesh_files makes them, applications in this process, clients.

Nothing but processes and files of its own: a mesh's random name gives it loopback addresses that nobody else uses.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import secrets
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import admin
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.local import DNS_PORT, dns_address
from ansible_collections.sidecar.mesh.plugins.module_utils.local_plan import zone
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Envoy
from behaviour.certificates import Authority
from behaviour.machine import BIN, ROOT, free_port, is_free, wait_until

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc

DNS_SERVER = ROOT / "roles" / "local" / "files" / "dns_server.py"
START_SECONDS = 20
NAMES = 5
ECHO = "/api.Echo/Echo"
FAIL = "/api.Echo/Fail"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
"""grpc.health.v1.HealthCheckResponse on the wire."""

Item = dict[str, Any]


# Clients


@dataclass(frozen=True)
class Answer:
    """What a client got. An application tells in the body what it saw."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def name(self) -> str:
        """The replica that answered."""
        return self.headers.get("hostname", "")

    @property
    def seen(self) -> Item:
        """Path and headers as the application saw them."""
        data: Item = json.loads(self.text)
        return data


def get(
    where: str,
    path: str = "/",
    headers: dict[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """A GET request to address:port on a new connection. ``path`` may be a whole URL, as proxies are asked."""
    with contextlib.closing(_connection(where, tls)) as connection:
        return ask(connection, path, headers)


def ask(connection: http.client.HTTPConnection, path: str = "/", headers: dict[str, str] | None = None) -> Answer:
    """A GET request on a connection that stays open."""
    connection.putrequest("GET", path, skip_host="host" in (headers or {}), skip_accept_encoding=True)
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())


def _connection(where: str, tls: ssl.SSLContext | None) -> http.client.HTTPConnection:
    host, _rest, port = where.rpartition(":")
    if tls:
        return http.client.HTTPSConnection(host, int(port), timeout=15, context=tls)
    return http.client.HTTPConnection(host, int(port), timeout=15)


def post(where: str, path: str, body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer."""
    with contextlib.closing(_connection(where, None)) as connection:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


def names(where: str, count: int, path: str = "/", headers: dict[str, str] | None = None) -> Counter[str]:
    """How often each replica answered."""
    with contextlib.closing(_connection(where, None)) as connection:
        return Counter(ask(connection, path, headers).name for _rest in range(count))


def statuses(where: str, count: int, path: str = "/") -> Counter[int]:
    """How often each status came."""
    with contextlib.closing(_connection(where, None)) as connection:
        return Counter(ask(connection, path).status for _rest in range(count))


def send(where: str, data: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """The answer of a TCP server that answers once; nothing when there is none behind the proxy."""
    host, _rest, port = where.rpartition(":")
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=15))
        if tls:
            connection = stack.enter_context(tls.wrap_socket(connection, server_hostname=host))
        connection.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(1024)
        return b""


def at_once(count: int, question: Callable[[], Any]) -> list[Any]:
    """The answers to the same question of so many clients at the same time."""
    with futures.ThreadPoolExecutor(count) as clients:
        return list(clients.map(lambda _rest: question(), range(count)))


def upgraded(where: str, path: str = "/") -> socket.socket | None:
    """A connection that has become a websocket, or None where it may not."""
    host, _rest, port = where.rpartition(":")
    connection = socket.create_connection((host, int(port)), timeout=15)
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    lines = [f"GET {path} HTTP/1.1", f"host: {where}", "connection: Upgrade", "upgrade: websocket"]
    lines += [f"sec-websocket-key: {key}", "sec-websocket-version: 13", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    if b" 101 " in head.partition(b"\r\n")[0]:
        assert _websocket_accept(key).encode() in head
        return connection
    connection.close()
    return None


def _websocket_accept(key: str) -> str:
    """What a server answers to a client's key (RFC 6455, 4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


def call(channel: grpc.Channel, method: str = ECHO) -> tuple[bytes, str]:
    """The answer to a unary gRPC call, and the replica that gave it. Raises grpc.RpcError."""
    answer, detail = channel.unary_unary(method).with_call(b"\n\x04echo", timeout=10)
    return answer, dict(detail.initial_metadata())["hostname"]


def code(channel: grpc.Channel, *metadata: tuple[str, str], timeout: float | None = 10) -> grpc.StatusCode:
    """How a unary gRPC call ends."""
    try:
        channel.unary_unary(ECHO)(b"", timeout=timeout, metadata=metadata)
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return grpc.StatusCode.OK


# Applications


@dataclass
class Application:
    """One replica's application, in this process."""

    name: str
    stop: Callable[[], None] = lambda: None
    paths: list[str] = field(default_factory=list)
    """What it was asked for."""
    hosts: dict[str, str | None] = field(default_factory=dict)
    """The host by which it was asked for a path."""
    answer: Callable[[str], int | None] = lambda _path: 200
    """Status for a path; None closes the connection without a word."""
    health: bytes = SERVING
    """What a gRPC application says about itself."""
    connections: int = 0
    """How many it accepted."""
    deadlines: list[float | None] = field(default_factory=list)
    """Seconds that callers of gRPC gave it."""


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: str, port: int, application: Application) -> None:
        self.application = application
        self.connections: set[socket.socket] = set()
        super().__init__((address, port), _HttpHandler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        self.application.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    server: _HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    """A whole answer at once, as servers send it."""

    def do_GET(self) -> None:
        application = self.server.application
        application.paths.append(self.path)
        application.hosts[self.path] = self.headers["host"]
        status = application.answer(self.path)
        if status is None:
            self.close_connection = True
            return
        if self.headers["upgrade"] == "websocket":
            self._echo()
            return
        headers = {key.lower(): ", ".join(self.headers.get_all(key, [])) for key in self.headers}
        seen = {"path": self.path, "headers": headers}
        body = json.dumps(seen).encode()
        self.send_response(status)
        self.send_header("hostname", application.name)
        self.send_header("content-length", str(len(body)))
        with contextlib.suppress(OSError):  # the proxy did not wait
            self.end_headers()
            self.wfile.write(body)

    def _echo(self) -> None:
        """Becomes a websocket; whatever is sent comes back."""
        self.send_response(101)
        for name, value in (("connection", "Upgrade"), ("upgrade", "websocket")):
            self.send_header(name, value)
        self.send_header("sec-websocket-accept", _websocket_accept(self.headers["sec-websocket-key"]))
        self.end_headers()
        self.wfile.flush()
        with contextlib.suppress(OSError):
            while data := self.connection.recv(4096):
                self.connection.sendall(data)
        self.close_connection = True

    def do_POST(self) -> None:
        """What it was sent comes back."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_rest: object) -> None:
        pass


class _TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def _serve_http(address: str, port: int, application: Application) -> Callable[[], None]:
    server = _HttpServer(address, port, application)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server.stop


def _serve_tcp(address: str, port: int, application: Application) -> Callable[[], None]:
    """Answers with its name and what it was sent."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while data := self.request.recv(1024):
                self.request.sendall(f"{application.name}:".encode() + data)

    server = _TcpServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _serve_tls(address: str, port: int, application: Application) -> Callable[[], None]:
    """Shakes hands with a certificate that has its name, and answers like the server of TCP."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        Authority(Path(folder), "application").issue(Path(folder), application.name)
        context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as connection:
                while data := connection.recv(1024):
                    connection.sendall(f"{application.name}:".encode() + data)

    server = _TcpServer((address, port), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


def _serve_grpc(address: str, port: int, application: Application) -> Callable[[], None]:
    """api.Echo/Echo, api.Echo/Fail and the health service, on bytes."""

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        application.paths.append(ECHO)
        application.deadlines.append(context.time_remaining())
        application.answer(ECHO)
        context.send_initial_metadata([("hostname", application.name)])
        return request

    def fail(_request: bytes, context: grpc.ServicerContext) -> bytes:
        application.paths.append(FAIL)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
        return b""

    def check(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return application.health

    def service(name: str, methods: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]]) -> Any:
        handlers = {key: grpc.unary_unary_rpc_method_handler(method) for key, method in methods.items()}
        return grpc.method_handlers_generic_handler(name, handlers)

    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    services = [service("api.Echo", {"Echo": echo, "Fail": fail}), service("grpc.health.v1.Health", {"Check": check})]
    server.add_generic_rpc_handlers(services)
    server.add_insecure_port(f"{address}:{port}")
    server.start()
    return lambda: server.stop(None).wait()


def serve(protocol: str, address: str, port: int, name: str) -> Application:
    """An application that answers now, and until it is stopped."""
    application = Application(name)
    server = {"http": _serve_http, "grpc": _serve_grpc, "tcp": _serve_tcp, "tls": _serve_tls}[protocol]
    try:
        application.stop = server(address, port, application)
    except OSError as error:
        raise OSError(f"{name} cannot listen on {address}:{port}: {error.strerror}") from error
    return application


# The mesh


class Mesh:
    """The Envoys of an inventory, and an application for every replica."""

    kubelet = False
    """Whether config folders change as those of pods do."""
    written: Callable[[], None] = staticmethod(lambda: None)
    """Called once everything is written, and before any Envoy starts."""

    def __init__(self, folder: Path, inventory: str) -> None:
        """``inventory``: YAML, or JSON, with services, front_proxies and settings; FRONT, FRONT2 … are free ports."""
        self.folder = folder
        self.ports = {f"FRONT{number}": free_port() for number in ("", 2, 3, 4, 5, 6)}
        self.applications: dict[str, Application] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        # Of the many meshes of a run, two whose names give them the same addresses may live at the same time.
        for _try in range(NAMES):
            self.name = f"edges-{secrets.token_hex(4)}"
            self.model = self.built(inventory)
            if all(is_free(replica["address"], port) for _protocol, replica, port in self._served()):
                break

    def start(self) -> None:
        self._serve()
        self._write()
        self.written()
        if any(cluster["discovery"] == "dns" for proxy in self.model["proxies"] for cluster in proxy["clusters"]):
            self._start_dns()
        with Envoy.found(str(BIN / "envoy")) as envoy:
            for proxy in self.model["proxies"]:
                self._start_process(proxy["name"], [envoy.program, *arguments(proxy, proxy["name"])])
        for proxy in self.model["proxies"]:
            wait_until(lambda name=proxy["name"]: self._is_ready(name), f"{proxy['name']} is ready", START_SECONDS)

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
        for application in self.applications.values():
            application.stop()

    def change(self, inventory: str) -> None:
        """Writes the folders of another inventory with the same proxies."""
        self.model = self.built(inventory)
        self._serve()
        self._write()

    # where things are

    def front(self, number: str = "") -> str:
        return f"127.0.0.1:{self.ports[f'FRONT{number}']}"

    def address(self, replica: str) -> str:
        return next(item["address"] for item in self.model["replicas"] if item["name"] == replica)

    def at(self, replica: str, port: int) -> str:
        return f"{self.address(replica)}:{port}"

    def proxy(self, name: str) -> Item:
        return next(proxy for proxy in self.model["proxies"] if proxy["name"] == name)

    def config(self, name: str) -> Path:
        return Path(self.proxy(name)["paths"]["config"])

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    # what it says

    def admin(self, name: str) -> str:
        proxy = self.proxy(name)
        return f"{proxy['addresses']['admin']}:{proxy['envoy']['admin_port']}"

    def stat(self, name: str, key: str) -> int:
        """A counter or gauge of a proxy; 0 where it has none."""
        return self.stats(name).get(key, 0)

    def stats(self, name: str) -> dict[str, int]:
        lines = admin.request(self.admin(name), "/stats?usedonly").splitlines()
        return {key: int(value) for key, _rest, value in (line.partition(": ") for line in lines) if value.isdecimal()}

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # how it is made

    def built(self, inventory: str) -> Item:
        for placeholder in sorted(self.ports, reverse=True):
            inventory = inventory.replace(placeholder, str(self.ports[placeholder]))
        data = json.loads(inventory) if inventory.startswith("{") else yaml.safe_load(inventory)
        services = [{"command": ["true"], **service} for service in data["services"]]
        settings = {"name": self.name, "engine": "local", "state_path": str(self.folder), **data.get("settings", {})}
        return build_model(services, data.get("front_proxies"), settings)

    def _serve(self) -> None:
        for protocol, replica, port in self._served():
            if replica["name"] not in self.applications:
                application = serve(protocol, replica["address"], port, replica["name"])
                self.applications[replica["name"]] = application

    def _served(self) -> Iterator[tuple[str, Item, int]]:
        """Protocol, replica and port of every application."""
        services = {service["name"]: service for service in self.model["services"]}
        for replica in self.model["replicas"]:
            if service := services.get(replica["workload"]):
                yield service["protocol"], replica, service["port"]

    def _write(self) -> None:
        write(self.folder / "zone.json", json.dumps(zone(self.model)))
        for proxy in mesh_files(self.model):
            folder = Path(proxy["folder"])
            if self.kubelet:
                swap(folder, proxy["files"])
                continue
            for name, text in proxy["files"].items():
                write(folder / name, text)

    def _start_dns(self) -> None:
        address = dns_address(self.name)
        command = [sys.executable, str(DNS_SERVER), "--address", address, "--port", str(DNS_PORT)]
        self._start_process("dns", [*command, "--zone", str(self.folder / "zone.json")])
        wait_until(lambda: "is served" in self.log("dns"), "the DNS server answers", START_SECONDS)

    def _start_process(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder
            )

    def _is_ready(self, name: str) -> bool:
        assert self._processes[name].poll() is None, f"{name} ended:\n{self.log(name)}"
        with contextlib.suppress(OSError):
            return admin.request(self.admin(name), "/ready") == "LIVE\n"
        return False


def write(path: Path, text: str) -> None:
    """A whole file at once, which is what Envoy watches for; nothing where it is the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_text() == text:
        return
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(text)
    fresh.rename(path)


def swap(folder: Path, files: dict[str, str]) -> None:
    """A folder's whole content as the kubelet changes that of a volume: files are links through a link that moves."""
    version = folder / f"..{secrets.token_hex(4)}"
    for name, text in files.items():
        write(version / name, text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")


@contextlib.contextmanager
def running(folder: Path, inventory: str, *, kubelet: bool = False) -> Iterator[Mesh]:
    """A mesh for the length of a block."""
    mesh = Mesh(folder, inventory)
    mesh.kubelet = kubelet
    try:
        mesh.start()
        yield mesh
    finally:
        mesh.stop()
