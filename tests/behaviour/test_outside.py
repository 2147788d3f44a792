"""What lies outside of the mesh: servers by DNS name with TLS, TLS passed on by name, and nothing else."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.local_plan import local_plan
from behaviour.certificates import Authority
from behaviour.envoys import DNS_SERVER, ECHO, Item, Mesh, call, get, running, send, serve
from behaviour.machine import loopback, wait_until
from cryptography import x509

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc

DNS_PORT = 5353
TLS_PORT = 8443
NOBODY = "nobody"


@dataclass
class Server:
    """A TLS server of somebody else, who tells what it saw of its client."""

    address: str
    stop: Callable[[], None] = lambda: None


class _TlsServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, context: ssl.SSLContext, handler: Any) -> None:
        self.context = context
        super().__init__((address, TLS_PORT), handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with contextlib.suppress(OSError), self.context.wrap_socket(request, server_side=True) as connection:
            self.RequestHandlerClass(connection, client_address, self)


def _told(connection: Any, **more: str) -> bytes:
    """What a server saw, as JSON."""
    shown = connection.getpeercert()
    who = dict(pair[0] for pair in shown["subject"])["commonName"] if shown else NOBODY
    serial = int(shown["serialNumber"], 16) if shown else 0
    protocol = connection.selected_alpn_protocol()
    return json.dumps({"sni": connection.asked_for, "client": who, "serial": serial, "alpn": protocol, **more}).encode()


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = _told(self.connection, host=self.headers["host"], path=self.path)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_rest: object) -> None:
        pass


class _TcpHandler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(_told(self.request, data=data.decode()))


def _remember(connection: Any, name: str | None, _context: ssl.SSLContext) -> None:
    connection.asked_for = name


def serve_tls(handler: Any, certificate: Path, clients: Path) -> Server:
    """A TLS server with a folder's certificate, that asks clients for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    context.load_verify_locations(clients)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.sni_callback = _remember
    context.set_alpn_protocols(["http/1.1"] if handler is _HttpHandler else [])
    server = Server(loopback())
    listening = _TlsServer(server.address, context, handler)
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()

    def stop() -> None:
        listening.shutdown()
        listening.server_close()

    server.stop = stop
    return server


def serve_grpc(certificate: Path, clients: Path) -> Server:
    """api.Echo/Echo over TLS; its answer tells the authority, and the client's name."""

    def echo(_request: bytes, context: grpc.ServicerContext) -> bytes:
        # What a call was addressed to has no other way out of grpc.
        asked = context._rpc_event.call_details.host.decode()  # type: ignore[attr-defined]
        context.send_initial_metadata([("hostname", context.auth_context()["x509_common_name"][0].decode())])
        return bytes(asked, "ascii")

    handler = grpc.method_handlers_generic_handler("api.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    pair = ((certificate / "tls.key").read_bytes(), (certificate / "tls.crt").read_bytes())
    credentials = grpc.ssl_server_credentials([pair], clients.read_bytes(), require_client_auth=True)
    server = Server(loopback())
    listening = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    listening.add_generic_rpc_handlers([handler])
    listening.add_secure_port(f"{server.address}:{TLS_PORT}", credentials)
    listening.start()
    server.stop = lambda: listening.stop(None).wait()
    return server


INVENTORY = """
services:
  - name: app
    port: 8081
    egress: shared
    sidecar: {access_log: {format: json, fields: [status, flags, upstream_cluster, upstream_failure]}}
    upstreams:
      - {service: api}
      - {service: inside}
      - {service: api-grpc, port: 9002}
      - {service: queue, port: 9003}
      - {service: misnamed, port: 9004}
      - {service: untrusted, port: 9005}
      - {service: by-address, port: 9006}
      - {service: plain, port: 9007}
      - {service: named-anew, port: 9008}
      - {service: bank, port: 9443}
      - {service: mail, port: 9443}
  - {name: inside, port: 8081}
  - name: api
    host: api.example.test
    port: 8443
    tls: {client_certificate: shop-client}
    connection: {max_requests: 1}
  - {name: api-grpc, host: grpc.example.test, port: 8443, protocol: grpc, tls: {client_certificate: shop-client}}
  - {name: queue, host: queue.example.test, port: 8443, protocol: tcp, tls: {client_certificate: shop-client}}
  - {name: misnamed, host: misnamed.example.test, port: 8443, tls: true}
  - {name: untrusted, host: untrusted.example.test, port: 8443, tls: true}
  - name: by-address
    port: 8443
    discovery: static
    endpoints: [{address: UNTRUSTED}]
    tls: {server_name: untrusted.example.test, ca_file: OTHER_CA}
  - {name: plain, host: plain.example.test, port: 8081}
  - {name: named-anew, host: misnamed.example.test, port: 8443, tls: {server_name: other.example.test}}
  - {name: bank, host: bank.example.test, port: 8443, protocol: tls}
  - {name: mail, host: mail.example.test, port: 8443, protocol: tls, server_names: ["*.mail.example.test"]}
  - {name: vault, port: 9000, protocol: tls}
front_proxies:
  - name: front
    listeners: [{port: FRONT, protocol: tls, services: [bank, vault]}, {port: FRONT2}]
    routes: [{prefix: /api, service: api}, {prefix: /, service: inside}]
settings: {ca_file: OUR_CA, dns: {resolvers: [{address: DNS, port: 5353}]}}
"""


@dataclass
class Outside:
    """A mesh, and the authority of the servers that it trusts."""

    mesh: Mesh
    authority: Authority

    def at(self, port: int) -> str:
        return self.mesh.at("app-1", port)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    ours, other = Authority(folder, "ours"), Authority(folder, "other")
    with contextlib.ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, authority, handler in (
            ("api", ours, _HttpHandler),
            ("grpc", ours, None),
            ("queue", ours, _TcpHandler),
            ("misnamed", ours, _HttpHandler),
            ("untrusted", other, _HttpHandler),
            ("bank", ours, _TcpHandler),
            ("mail", ours, _TcpHandler),
        ):
            own = folder / "servers" / name
            authority.issue(own, name, f"{'other' if name == 'misnamed' else name}.example.test")
            servers[name] = serve_tls(handler, own, ours.path) if handler else serve_grpc(own, ours.path)
            stack.callback(servers[name].stop)
        ours.issue(folder / "certificates" / "shop-client", "shop")
        plain = loopback()
        records = {f"{name}.example.test": [server.address] for name, server in servers.items()}
        dns = _dns_server(folder, {**records, "plain.example.test": [plain]}, stack)
        inventory = INVENTORY
        for placeholder, text in (
            ("UNTRUSTED", servers["untrusted"].address),
            ("OTHER_CA", other.path),
            ("OUR_CA", ours.path),
            ("DNS", dns),
        ):
            inventory = inventory.replace(placeholder, str(text))
        stack.callback(serve("http", plain, 8081, "plain").stop)
        yield Outside(stack.enter_context(running(folder, inventory)), ours)


def _dns_server(folder: Path, records: dict[str, list[str]], stack: contextlib.ExitStack) -> str:
    """Address of a DNS server for names outside of the mesh."""
    zone, log, address = folder / "outside.json", folder / "outside-dns.log", loopback()
    zone.write_text(json.dumps({"ttl": 1, "domain": "test", "records": records}))
    command = [sys.executable, str(DNS_SERVER), "--address", address, "--port", str(DNS_PORT), "--zone", str(zone)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    stack.callback(process.wait)
    stack.callback(process.kill)
    wait_until(lambda: "is served" in log.read_text(), "the DNS server answers")
    return address


def seen(text: str | bytes) -> Item:
    data: Item = json.loads(text)
    return data


# TLS origination


def test_http_is_sent_in_tls_under_the_servers_own_name(outside: Outside) -> None:
    expected = {"sni": "api.example.test", "host": "api.example.test", "client": "shop", "alpn": "http/1.1"}
    for where, path, headers in (
        (outside.at(15001), "/a", {"host": "api.example.test"}),
        (outside.at(15001), "http://api.example.test/a", {"host": "api.example.test"}),
        (outside.mesh.front("2"), "/api", {"host": "shop.example.com"}),
    ):
        answer = get(where, path, headers)
        assert answer.status == 200, answer.text
        assert seen(answer.text).items() >= expected.items()


def test_grpc_is_sent_in_tls_under_the_servers_own_name(outside: Outside) -> None:
    with grpc.insecure_channel(outside.at(9002)) as channel:
        assert call(channel, ECHO) == (b"grpc.example.test", "shop")


def test_tcp_is_sent_in_tls(outside: Outside) -> None:
    answer = seen(send(outside.at(9003), b"hello"))
    assert (answer["sni"], answer["client"], answer["data"]) == ("queue.example.test", "shop", "hello")


def test_the_name_asked_for_may_be_another(outside: Outside) -> None:
    answer = seen(get(outside.at(9008)).text)
    assert (answer["sni"], answer["host"], answer["client"]) == ("other.example.test", "misnamed.example.test", NOBODY)


def test_an_address_with_a_name_and_an_authority_of_its_own(outside: Outside) -> None:
    answer = get(outside.at(9006))
    assert answer.status == 200, answer.text
    assert seen(answer.text)["sni"] == "untrusted.example.test"


def test_a_host_without_tls_is_called_by_its_name(outside: Outside) -> None:
    answer = get(outside.at(9007), "/", {"host": "whatever:80"})
    assert (answer.name, answer.seen["headers"]["host"]) == ("plain", "plain.example.test")


@pytest.mark.parametrize(("port", "name"), [(9004, "misnamed"), (9005, "untrusted")])
def test_a_server_that_is_not_who_it_should_be_gets_no_request(outside: Outside, port: int, name: str) -> None:
    assert get(outside.at(port), "/secret").status == 503

    def failures() -> list[str]:
        lines = [json.loads(line) for line in outside.mesh.log("app-1").splitlines() if line.startswith("{")]
        return [line["upstream_failure"] for line in lines if line["upstream_cluster"] == name]

    (failure, *_rest) = wait_until(failures, "the log tells")
    assert "CERTIFICATE_VERIFY_FAILED" in failure


def test_a_client_certificate_is_renewed_without_a_restart(outside: Outside) -> None:
    pid = outside.mesh.pid("app-1")
    folder = outside.mesh.folder / "certificates" / "shop-client"
    renewed = outside.authority.issue(folder, "shop-renewed")

    def shown() -> bool:
        answer = seen(get(outside.at(15001), "/", {"host": "api.example.test"}).text)
        return (answer["client"], answer["serial"]) == ("shop-renewed", renewed.serial_number)

    wait_until(shown, "the new certificate is shown")
    assert outside.mesh.pid("app-1") == pid
    outside.authority.issue(folder, "shop")
    wait_until(lambda: seen(send(outside.at(9003), b"x"))["client"] == "shop", "TCP shows the newest one")


def test_what_belongs_to_others_is_neither_run_nor_made(outside: Outside) -> None:
    """Their servers have no programs, and a certificate that is shown is not one to make."""
    paths = dict.fromkeys(("state", "python", "envoy", "path", "applications", "dns_server"), "/x")
    versions = dict.fromkeys(("envoy", "applications", "dns_server"), "1")
    plan = local_plan(outside.mesh.model, {**paths, "versions": versions})
    ours = {"app-1", "inside-1", "vault-1", "front-1", "dns"}
    assert {program["name"].partition(".")[0] for program in plan["programs"]} == ours
    assert plan["certificates"] == []
    assert set(plan["zone"]["records"]) == {f"{name}.default.svc.cluster.local" for name in ("app", "inside", "vault")}


# TLS that is passed on


def handshake(where: str, name: str | None) -> str:
    """The common name of the certificate of who answers to a name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, _rest, port = where.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        certificate = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        return str(certificate.subject.rfc4514_string())


@pytest.mark.parametrize(
    ("where", "name", "answers"),
    [
        ("front", "bank.example.test", "CN=bank"),
        ("front", "vault", "CN=vault-1"),
        ("front", "vault.default.svc.cluster.local", "CN=vault-1"),
        ("sidecar", "bank.example.test", "CN=bank"),
        ("sidecar", "in.mail.example.test", "CN=mail"),
        ("sidecar", "out.mail.example.test", "CN=mail"),
    ],
)
def test_tls_is_passed_on_to_whom_the_client_asks_for(outside: Outside, where: str, name: str, answers: str) -> None:
    address = outside.mesh.front() if where == "front" else outside.at(9443)
    assert handshake(address, name) == answers


@pytest.mark.parametrize("where", ["front", "sidecar"])
@pytest.mark.parametrize("name", ["other.example.test", "mail.example.test", None])
def test_other_names_and_none_are_closed_on(outside: Outside, where: str, name: str | None) -> None:
    address = outside.mesh.front() if where == "front" else outside.at(9443)
    with pytest.raises(OSError, match=r"EOF|reset"):
        handshake(address, name)


# Nothing else


@pytest.mark.parametrize("host", ["example.com", "other.example.test", "plain.example.test"])
def test_other_hosts_are_refused_with_the_remedy(outside: Outside, host: str) -> None:
    answer = get(outside.at(15001), f"http://{host}/", {"host": host})
    assert answer.status == 403
    assert "no upstream of app" in answer.text
    assert "upstreams of mesh_services" in answer.text
    assert get(outside.at(15001), "/", {"host": "inside"}).name == "inside-1"
