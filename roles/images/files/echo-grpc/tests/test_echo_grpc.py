# SPDX-License-Identifier: GPL-3.0-or-later
"""What server.py does, seen from outside: a real process, real connections."""

import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures
from importlib.metadata import version
from pathlib import Path

import echo_pb2
import echo_pb2_grpc
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

APP = Path(__file__).resolve().parent.parent
TIMEOUT = 10
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def echo(channel, content):
    """The content that came back, and the response headers."""
    response, call = echo_pb2_grpc.EchoStub(channel).Echo.with_call(
        echo_pb2.EchoRequest(content=content), timeout=TIMEOUT, wait_for_ready=True
    )
    return response.content, dict(call.initial_metadata())


def open_call(channel):
    """An Echo call under way: its headers are sent, its message follows when the queue gets it."""
    messages = queue.SimpleQueue()
    method = channel.stream_unary(
        "/api.Echo/Echo",
        request_serializer=echo_pb2.EchoRequest.SerializeToString,
        response_deserializer=echo_pb2.EchoResponse.FromString,
    )
    call = method.future(iter(messages.get, None), timeout=TIMEOUT, wait_for_ready=True)
    time.sleep(0.2)
    echo(channel, "on the same connection, so the server has seen the open call too")

    def finish(content):
        messages.put(echo_pb2.EchoRequest(content=content))
        messages.put(None)
        return call.result(timeout=TIMEOUT).content

    return call, finish


def wait_until_refused(server):
    """The listener closes a moment after the signal; until then a connection is accepted."""
    host, _colon, port = server.target.rpartition(":")
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=TIMEOUT).close()
        # The backlog of a closing listener is reset.
        except (ConnectionRefusedError, ConnectionResetError):
            return
        time.sleep(0.02)
    pytest.fail(f"{server.target} still accepts connections after {TIMEOUT} s")


CONTENTS = ["echo", "", " leading and trailing\n", "\x00 ü 漢字 🙂", "x" * 1_000_000]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: ascii(content[:12]))
def test_content_comes_back_unaltered(start, connect, content):
    assert echo(connect(start()), content)[0] == content


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"POD_NAME": "pod-7", "HOSTNAME": "host-7"}, "pod-7"),
        ({"POD_NAME": "", "HOSTNAME": "host-7"}, "host-7"),
        ({"POD_NAME": "", "HOSTNAME": ""}, socket.gethostname()),
    ],
    ids=["POD_NAME", "HOSTNAME", "gethostname"],
)
def test_header_hostname_names_the_replica(start, connect, environ, expected):
    assert echo(connect(start(**environ)), "echo")[1]["hostname"] == expected


def test_replicas_share_a_port_on_addresses_of_their_own(start, connect):
    first = start()
    second = start(BIND_ADDRESS="127.0.0.2", PORT=first.target.rpartition(":")[2], POD_NAME="echo-1")
    assert [echo(connect(server), "echo")[1]["hostname"] for server in (first, second)] == ["echo-0", "echo-1"]


@pytest.mark.parametrize("service", ["", "api.Echo"])
def test_health_is_serving(start, connect, service):
    stub = health_pb2_grpc.HealthStub(connect(start()))
    request = health_pb2.HealthCheckRequest(service=service)
    assert stub.Check(request, timeout=TIMEOUT, wait_for_ready=True).status == SERVING


def test_health_of_an_unknown_service_is_not_found(start, connect):
    stub = health_pb2_grpc.HealthStub(connect(start()))
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="api.Nope"), timeout=TIMEOUT, wait_for_ready=True)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_reflection_lists_the_service(start, connect):
    stub = reflection_pb2_grpc.ServerReflectionStub(connect(start()))
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT, wait_for_ready=True)
    names = {service.name for service in answer.list_services_response.service}
    assert names == {"api.Echo", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT], ids=lambda signum: signum.name)
def test_a_signal_ends_an_idle_server_at_once(start, connect, signum):
    server = start(SHUTDOWN_GRACE="15")
    echo(connect(server), "this connection stays open")
    sent = time.monotonic()
    server.process.send_signal(signum)
    assert server.result() == (0, "echo-grpc: echo-0 stopped\n", "")
    assert time.monotonic() - sent < 5


def test_sigterm_lets_a_call_under_way_finish(start, connect):
    server = start()
    channel = connect(server)
    _call, finish = open_call(channel)

    server.process.send_signal(signal.SIGTERM)
    wait_until_refused(server)
    assert server.process.poll() is None, "the server ended with a call under way"

    assert finish("sent after the signal") == "sent after the signal"
    assert server.result() == (0, "echo-grpc: echo-0 stopped\n", "")


def test_the_grace_time_ends_a_call_that_does_not(start, connect):
    server = start(SHUTDOWN_GRACE="0.5")
    call, _finish = open_call(connect(server))
    sent = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.result()[0] == 0
    assert 0.4 < time.monotonic() - sent < 5
    with pytest.raises((grpc.RpcError, futures.CancelledError)):
        call.result(timeout=TIMEOUT)


@pytest.mark.parametrize("service", ["", "api.Echo"])
def test_watchers_hear_that_it_stops(start, connect, service):
    server = start(SHUTDOWN_GRACE="0.5")
    stub = health_pb2_grpc.HealthStub(connect(server))
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT, wait_for_ready=True)
    assert next(watch).status == SERVING
    server.process.send_signal(signal.SIGTERM)
    assert next(watch).status == NOT_SERVING
    assert server.result()[0] == 0


@pytest.mark.parametrize(
    ("family", "address", "shown"),
    [(socket.AF_INET, "127.0.0.3", "127.0.0.3"), (socket.AF_INET6, "::1", "[::1]")],
    ids=["IPv4", "IPv6"],
)
def test_a_line_says_where_it_listens(launch, family, address, shown):
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip(f"this machine has no address {address}")
    server = launch(BIND_ADDRESS=address, PORT=str(port), POD_NAME="echo-0")
    assert server.first_line() == f"echo-grpc: echo-0 listens on {shown}:{port}\n"


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_an_error(start, launch, address):
    port = start().target.rpartition(":")[2]
    reason = "in use, not permitted, or not an address of this machine"
    message = f"echo-grpc: cannot listen on BIND_ADDRESS='{address}' PORT='{port}': {reason}\n"
    assert launch(BIND_ADDRESS=address, PORT=port).result() == (1, "", message)


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1", "80.5", "²", "9" * 5000], ids=lambda port: port[:6])
def test_a_bad_port_is_an_error(launch, port):
    message = f"echo-grpc: PORT={port!r} is not a port: use a whole number from 1 to 65535\n"
    assert launch(PORT=port).result() == (1, "", message)


@pytest.mark.parametrize("grace", ["soon", "-1", "nan", "inf"])
def test_a_bad_grace_time_is_an_error(launch, grace):
    message = f"echo-grpc: SHUTDOWN_GRACE={grace!r} is not a time: use a number of seconds, 0 or more\n"
    assert launch(SHUTDOWN_GRACE=grace).result() == (1, "", message)


def pins(name):
    """The `name==version` lines of a requirements file."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)", (APP / name).read_text(encoding="utf-8"), re.MULTILINE))


def test_the_generated_code_is_what_echo_proto_gives(tmp_path):
    assert version("grpcio-tools") == pins("requirements.txt")["grpcio"], "grpcio-tools must be of grpcio's version"
    shutil.copy(APP / "echo.proto", tmp_path)
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--python_out=.", "--grpc_python_out=.", "echo.proto"]
    subprocess.run(protoc, cwd=tmp_path, check=True)
    for name in ("echo_pb2.py", "echo_pb2_grpc.py"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (APP / name).read_text(encoding="utf-8"), name


def test_the_lock_holds_every_requirement():
    direct, locked = pins("requirements.txt"), pins("requirements.lock")
    assert direct.items() <= locked.items()


def test_the_lock_names_no_index():
    assert "://" not in (APP / "requirements.lock").read_text(encoding="utf-8")
