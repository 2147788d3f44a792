# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as seen over the wire by clients that do what no Envoy does, and by many at once."""

import asyncio
import contextlib
import queue
import resource
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.names import TOKEN_HEADER
from conftest import APP, COLLECTIONS
from control_plane.encode import TYPE_URLS
from control_plane.metrics import Metrics
from control_plane.server import DiscoveryService, Identity, UnknownPeerError, make_server
from control_plane.snapshots import snapshot
from control_plane.store import Proxy, Store
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from mesh import ADDRESS, Server, cluster, free_port, resources, wait_until

CLUSTERS = TYPE_URLS["clusters"]
TIMEOUT = 10


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.write(a=resources(9, "b", {"b": [1], "c": [2]}))
    made.start()
    yield made
    made.stop()


class Wire:
    """An incremental stream; what is put into it goes out at once."""

    def __init__(
        self, server: Server, method: str = "Delta", channel: grpc.Channel | None = None, token: str = ""
    ) -> None:
        self.channel = channel or grpc.insecure_channel(f"{ADDRESS}:{server.port}")
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self.channel.stream_stream(
            f"/envoy.service.discovery.v3.AggregatedDiscoveryService/{method}AggregatedResources",
            request_serializer=lambda request: request if isinstance(request, bytes) else request.SerializeToString(),
            response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
        )
        shown = ((TOKEN_HEADER, token),) if token else ()
        self.responses = call(iter(self._requests.get, None), timeout=TIMEOUT, metadata=shown)

    def send(self, node: str = "", type_url: str = CLUSTERS, **fields: Any) -> "Wire":
        self._requests.put(
            discovery_pb2.DeltaDiscoveryRequest(node=base_pb2.Node(id=node), type_url=type_url, **fields)
        )
        return self

    def raw(self, data: bytes) -> "Wire":
        self._requests.put(data)
        return self

    def next(self) -> Any:
        return next(self.responses)

    def status(self) -> tuple[grpc.StatusCode, str]:
        """Of the stream, which the server has to end."""
        with pytest.raises(grpc.RpcError):
            list(self.responses)
        return self.responses.code(), self.responses.details()

    def close(self) -> None:
        self._requests.put(None)
        self.responses.cancel()
        self.channel.close()


def loaded(server: Server) -> float:
    """How many configurations the server took."""
    return server.metric('configurations_total{result="loaded"}')


def assert_served(server: Server) -> None:
    wire = Wire(server).send("a")
    assert [item.name for item in wire.next().resources] == ["b", "c"]
    wire.close()


def test_a_stream_without_node_is_refused(server: Server) -> None:
    assert Wire(server).send().status() == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "the first request must have a node.id of 1 to 256 characters",
    )
    assert Wire(server).send("a" * 257).status()[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert server.metric('streams_refused_total{reason="no_node"}') == 2
    assert_served(server)


@pytest.mark.parametrize("node", ["x", "a2", "A", "a\x00", "../a", "Ünïcode"])
def test_a_node_that_is_no_proxy_is_refused(server: Server, node: str) -> None:
    code, text = Wire(server).send(node).status()
    assert code == grpc.StatusCode.NOT_FOUND
    assert "no proxy is known for node.id" in text
    assert_served(server)


def test_a_pod_is_found_by_its_workload(server: Server) -> None:
    wire = Wire(server)
    node = base_pb2.Node(id="a-5d8f7-xyz", cluster="a")
    wire.raw(discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=CLUSTERS).SerializeToString())
    assert len(wire.next().resources) == 2
    assert server.connected("a")["node"] == "a-5d8f7-xyz"
    wire.close()


@pytest.mark.parametrize("type_url", ["", "garbage", "type.googleapis.com/a b"])
def test_a_type_that_is_none_is_refused(server: Server, type_url: str) -> None:
    assert Wire(server).send("a", type_url).status()[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert server.metric('streams_refused_total{reason="malformed"}') == 1
    assert_served(server)


def test_a_type_that_is_not_served_is_ignored(server: Server) -> None:
    wire = Wire(server)
    for _each in range(3):
        wire.send("a", "type.googleapis.com/envoy.service.runtime.v3.Runtime")
    wire.send()
    assert wire.next().type_url == CLUSTERS
    assert server.metric("types_ignored_total") == 1
    assert [line["type_url"] for line in server.log() if line["event"] == "ignored"] != []
    wire.close()


def test_another_node_on_the_same_stream_is_refused(server: Server) -> None:
    for number in range(10):
        wire = Wire(server).send("a")
        if number % 2:
            wire.next()
        assert wire.send("b").status()[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert_served(server)


@pytest.mark.parametrize("data", [b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f"], ids=["noise", "length"])
@pytest.mark.parametrize("method", ["Delta", "Stream"])
def test_garbage_ends_the_stream_alone(server: Server, method: str, data: bytes) -> None:
    assert Wire(server, method).raw(data).status()[0] != grpc.StatusCode.OK
    wire = Wire(server).send("a")
    wire.next()
    wire.raw(data)
    assert wire.status()[0] != grpc.StatusCode.OK
    wait_until(lambda: server.status()["connected"] == [], "nobody is connected")
    assert_served(server)


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    code, _text = Wire(server).send("a", resource_names_subscribe=["x" * 5_000_000]).status()
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_served(server)


def test_bytes_that_are_no_http2_harm_nobody(server: Server) -> None:
    with socket.create_connection((ADDRESS, server.port)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"\x00" * 1000)
        assert_served(server)


def test_whoever_never_acknowledges_costs_nothing(server: Server) -> None:
    silent = Wire(server).send("a").send(type_url=TYPE_URLS["endpoints"], resource_names_subscribe=["b"])
    first = [silent.next().type_url for _each in range(2)]
    assert sorted(first) == sorted([CLUSTERS, TYPE_URLS["endpoints"]])
    before = rss(server)
    for number in range(60):
        server.write(a=resources(9, "b", {"b": list(range(1, 500 + number)), "c": [2]}))
        wait_until(
            lambda count=number: server.metric('configurations_total{result="loaded"}') == count + 2, "it is read"
        )
    assert server.metric('pushes_total{type="endpoints"}') == 1
    assert rss(server) - before < 6000
    assert_served(server)
    silent.close()


def test_whoever_does_not_read_holds_up_nobody(server: Server) -> None:
    """The connection is full after some of it, and the rest waits in the server."""

    def names(count: int) -> list[str]:
        return [f"service-{number:05}" for number in range(count)]

    server.write(a=resources(9, "b", {name: [1] for name in names(3000)}))
    wait_until(lambda: loaded(server) == 2, "it is read")
    with socket.create_connection((ADDRESS, server.port)) as connection:
        # A client that says it takes nothing: its window for streams is 0.
        request = discovery_pb2.DeltaDiscoveryRequest(node=base_pb2.Node(id="a"), type_url=CLUSTERS).SerializeToString()
        connection.sendall(http2_request(request))
        wait_until(lambda: server.metric('pushes_total{type="clusters"}') == 1, "it is written")
        wire = Wire(server).send("a")
        begin = time.monotonic()
        assert len(wire.next().resources) == 3000
        assert time.monotonic() - begin < 2
        wire.close()


def http2_request(message: bytes) -> bytes:
    """An open stream of the incremental service, with a window of 0 bytes. Source: RFC 9113, RFC 7541."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload

    def header(name: str, value: str) -> bytes:
        return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()

    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        ":authority": "x",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    block = b"".join(header(name, value) for name, value in headers.items())
    window = (4).to_bytes(2, "big") + (0).to_bytes(4, "big")
    data = b"\x00" + len(message).to_bytes(4, "big") + message
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, window) + frame(1, 4, 1, block) + frame(0, 0, 1, data)


def test_the_end_comes_at_once(server: Server) -> None:
    wire = Wire(server).send("a")
    wire.next()
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 2
    assert wire.status()[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    events = [line["event"] for line in server.log()]
    assert events[-1] == "stopped"
    server.start()
    assert_served(server)


# A configuration that is wrong


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value"),
        ("[]", "is not a dictionary of proxies"),
        ('{"a": 1}', "proxy a: has no workload, or no resources"),
        ('{"a": {"workload": "a", "resources": {"clusters": []}}}', "proxy a: resources are dictionaries by name"),
        (
            '{"a": {"workload": "a", "resources": {"clusters": {"b": {"name": "b", "x": 1}}}}}',
            'proxy a: clusters b: Message type "envoy.config.cluster.v3.Cluster" has no field named "x" at "Cluster".',
        ),
        ("[" * 100_000, ""),
    ],
)
def test_what_cannot_be_read_leaves_what_is_served(server: Server, text: str, problem: str) -> None:
    version = server.status()["configuration"]["version"]
    (server.folder / "resources.json").write_text(text)
    found = wait_until(lambda: server.status()["configuration"]["error"], "it is read")
    assert problem in found
    assert server.status()["configuration"]["version"] == version
    assert server.metric("configuration_failed") == 1
    assert server.get("/ready")[0] == 200
    assert_served(server)
    server.write()
    wait_until(lambda: server.status()["configuration"]["error"] is None, "it is right again")


def test_without_a_configuration_nobody_is_served(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        status, text = server.get("/ready")
        assert (status, "No such file" in text) == (503, True)
        assert Wire(server).send("a").status()[0] == grpc.StatusCode.UNAVAILABLE
        server.write(a=resources(9, "b", {"b": [1], "c": [2]}))
        wait_until(lambda: server.get("/ready")[0] == 200, "a configuration is loaded")
        assert_served(server)
    finally:
        server.stop()


# HTTP


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"GET /healthz?x HTTP/1.0\r\nA: b\r\n\r\n", b"HTTP/1.1 200 OK\r\n"),
        (b"POST /status HTTP/1.1\r\n\r\n", b"HTTP/1.1 405 Method Not Allowed\r\n"),
        (b"GET /../etc HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 Not Found\r\n"),
        (b"\x16\x03\x01\x00\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n"),
        (b"GET " + b"a" * 100_000, b""),
    ],
    ids=range(6),
)
def test_http(server: Server, data: bytes, answer: bytes) -> None:
    with socket.create_connection((ADDRESS, server.admin_port)) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(data)
        assert connection.recv(100000).startswith(answer)
    assert server.get("/healthz") == (200, "ok\n")


def test_slow_clients_do_not_take_all_places_of_http_for_long(server: Server) -> None:
    slow = [socket.create_connection((ADDRESS, server.admin_port)) for _each in range(64)]
    for connection in slow:
        connection.sendall(b"GET /")
    wait_until(lambda: server.get("/healthz")[0] == 200, "there is a place again", 8)
    for connection in slow:
        connection.close()


# Who asks


def in_process(identity: Identity | None, node: str) -> tuple[grpc.StatusCode, str]:
    """The status of a stream for a peer that is somebody, or OK once it is served."""

    async def run() -> tuple[grpc.StatusCode, str]:
        async def identify(_context: Any) -> Identity | None:
            if identity == Identity(node="forged"):
                raise UnknownPeerError("a forged token")
            return identity

        loop = asyncio.get_running_loop()
        store = Store(lambda seconds, function: loop.call_later(seconds, function).cancel)
        made = snapshot({"clusters": {"b": cluster("b")}})
        store.set({name: Proxy.of(name, made) for name in ("a", "z")})
        server = make_server(DiscoveryService(store, Metrics(), identify))
        port = server.add_insecure_port(f"{ADDRESS}:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"{ADDRESS}:{port}") as channel:
                call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
                await call.write(discovery_pb2.DeltaDiscoveryRequest(node=base_pb2.Node(id=node), type_url=CLUSTERS))
                try:
                    await call.read()
                except grpc.aio.AioRpcError as exc:
                    return exc.code(), exc.details() or ""
                call.cancel()
                return grpc.StatusCode.OK, ""
        finally:
            await server.stop(None)

    return asyncio.run(run())


def test_a_proxy_gets_its_own_configuration_only() -> None:
    assert in_process(Identity(workload="a"), "a")[0] == grpc.StatusCode.OK
    assert in_process(Identity(), "z")[0] == grpc.StatusCode.OK
    assert in_process(Identity(workload="a"), "z") == (
        grpc.StatusCode.PERMISSION_DENIED,
        "the peer is workload 'a', and 'z' is a proxy of another one",
    )
    assert in_process(Identity(node="a"), "z") == (
        grpc.StatusCode.PERMISSION_DENIED,
        "the peer is node 'a', and node.id is 'z'",
    )
    assert in_process(Identity(node="pod", proxy="a"), "pod")[0] == grpc.StatusCode.OK
    assert in_process(Identity(node="a", proxy="x"), "a") == (
        grpc.StatusCode.NOT_FOUND,
        "no proxy is known for its configuration 'x'",
    )


def test_a_peer_that_does_not_prove_who_it_is_is_refused() -> None:
    assert in_process(None, "a")[0] == grpc.StatusCode.UNAUTHENTICATED
    assert in_process(Identity(node="forged"), "a") == (grpc.StatusCode.UNAUTHENTICATED, "a forged token")


# TLS


def certificate(folder: Path, name: str) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    command += ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run(
        [*command, "-keyout", folder / "tls.key", "-out", folder / "tls.crt"], check=True, capture_output=True
    )


def tls_channel(server: Server, folder: Path, name: str) -> grpc.Channel:
    trusted = grpc.ssl_channel_credentials((folder / "tls.crt").read_bytes())
    options = (("grpc.ssl_target_name_override", name),)
    return grpc.secure_channel(f"{ADDRESS}:{server.port}", trusted, options)


def test_a_certificate_that_changes_is_read_again(tmp_path: Path) -> None:
    certificate(tmp_path, "one")
    server = Server(tmp_path, f"--tls-certificate={tmp_path / 'tls.crt'}", f"--tls-key={tmp_path / 'tls.key'}")
    server.write(a=resources(9, "b", {"b": [1]}))
    server.start()
    try:
        wire = Wire(server, channel=tls_channel(server, tmp_path, "one")).send("a")
        assert len(wire.next().resources) == 1
        assert Wire(server).send("a").status()[0] == grpc.StatusCode.UNAVAILABLE, "plain text"
        (tmp_path / "tls.key").write_text("of another certificate")
        again = Wire(server, channel=tls_channel(server, tmp_path, "one")).send("a")
        assert len(again.next().resources) == 1
        certificate(tmp_path, "two")
        other = Wire(server, channel=tls_channel(server, tmp_path, "two")).send("a")
        assert len(other.next().resources) == 1
        for each in (wire, again, other):
            each.close()
    finally:
        server.stop()


def test_on_one_machine_a_proxy_shows_the_token_of_the_mesh(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sesame")
    server = Server(tmp_path, f"--token={token}")
    server.write(a=resources(9, "b", {"b": [1]}))
    server.start()
    try:
        wire = Wire(server, token="sesame").send("a")
        assert len(wire.next().resources) == 1
        for shown in ("", "two", "sesame2", "Sesame"):
            code, text = Wire(server, token=shown).send("a").status()
            assert code == grpc.StatusCode.UNAUTHENTICATED
            assert text == "x-mesh-token: is not the token of this mesh"
        token.write_text("two")
        assert len(Wire(server, token="two").send("a").next().resources) == 1
        for gone in ("", None):
            token.write_text(gone) if gone is not None else token.unlink()
            assert Wire(server, token="two").send("a").status()[0] == grpc.StatusCode.UNAUTHENTICATED
        assert "sesame" not in (tmp_path / "server.log").read_text()
        wire.close()
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--listen=0.0.0.0:18000"], "without TLS --listen must be an address of loopback"),
        (["--listen=[::]:18000"], "without TLS --listen must be an address of loopback"),
        (["--listen=localhost:18000"], "is not an IP address and a port"),
        (["--listen=127.0.0.1:70000"], "is not an IP address and a port"),
        (["--listen=127.0.0.1:18000", "--zone=/x"], "--published and --zone go together"),
        (["--listen=127.0.0.1:18000", "--tls-key=/x"], "--tls-certificate and --tls-key go together"),
        (["--listen=127.0.0.1:18000", "--tls-certificate=/x", "--tls-key=/x"], "No such file or directory: '/x'"),
        (
            ["--listen=192.0.2.1:18000", "--tls-certificate=/x", "--tls-key=/x"],
            "without --namespace --listen must be an address of loopback",
        ),
    ],
)
def test_arguments_that_cannot_be_used(arguments: list[str], problem: str) -> None:
    command = [sys.executable, "-B", "-m", "control_plane", f"--status={ADDRESS}:{free_port()}", "--resources=/none"]
    env = {"PYTHONPATH": f"{APP}:{COLLECTIONS}"}
    run = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True, timeout=20, check=False)
    assert run.returncode in (1, 2)
    assert problem in run.stderr


def test_a_port_in_use(server: Server, tmp_path: Path) -> None:
    other = Server(tmp_path / "other")
    for name in ("port", "admin_port"):
        wrong = {"port": other.port, "admin_port": other.admin_port, name: getattr(server, name)}
        command = [sys.executable, "-B", "-m", "control_plane", f"--listen={ADDRESS}:{wrong['port']}"]
        command += [f"--status={ADDRESS}:{wrong['admin_port']}", "--resources=/none"]
        env = {"PYTHONPATH": f"{APP}:{COLLECTIONS}"}
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=False)
        assert (run.returncode, run.stderr.count("\n")) == (1, 1)
        assert "cannot listen on" in run.stderr


# Many


def rss(server: Server) -> int:
    """Kibibytes."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


async def client(server: Server, name: str) -> AsyncIterator[None]:
    """As an Envoy starts, on a connection of its own; then it acknowledges whatever comes."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"{ADDRESS}:{server.port}", options) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        subscribe = {"clusters": [], "endpoints": ["b", "c"], "listeners": [], "routes": ["in"]}
        for kind, names in subscribe.items():
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(
                    node=base_pb2.Node(id=name), type_url=TYPE_URLS[kind], resource_names_subscribe=names
                )
            )
        for count in range(1_000_000):
            response = await call.read()
            if response is grpc.aio.EOF:
                return
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            )
            if count == 3:
                yield
    yield


def test_500_at_once(server: Server, record_property: Callable[[str, object], None]) -> None:
    names = [f"p{number}" for number in range(500)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    wanted = resources(9, "b", {"b": [1], "c": [2]})
    server.write(**dict.fromkeys(names, wanted))
    wait_until(lambda: loaded(server) == 2, "it is read")
    before = rss(server)

    async def run() -> tuple[float, float]:
        begin = time.monotonic()
        clients = [client(server, name) for name in names]
        await asyncio.wait_for(asyncio.gather(*(anext(each) for each in clients)), 30)
        started = time.monotonic() - begin
        reading = [asyncio.ensure_future(anext(each, None)) for each in clients]
        server.write(**dict.fromkeys(names, resources(9, "b", {"b": [3], "c": [2]})))
        begin = time.monotonic()
        while server.metric("push_seconds_count") < 500:
            await asyncio.sleep(0.05)
            assert time.monotonic() - begin < 20
        changed = time.monotonic() - begin
        for each in reading:
            each.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        return started, changed

    started, changed = asyncio.run(run())
    for name, value in {"started": started, "changed": changed, "kibibytes": rss(server) - before}.items():
        record_property(name, value)
    assert started < 15
    wait_until(lambda: server.status()["connected"] == [], "all are gone")
