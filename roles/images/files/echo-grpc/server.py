# SPDX-License-Identifier: GPL-3.0-or-later
"""The gRPC service api.Echo: answers with the content it was sent and names the replica that answered.

Everything is configured by environment variables, see README.md.
"""

import asyncio
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass

# A failed bind is reported by main(); gRPC's own report of it would be a second and third line on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import echo_pb2
import echo_pb2_grpc
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

ECHO = echo_pb2.DESCRIPTOR.services_by_name["Echo"].full_name


class StartError(Exception):
    """The server cannot start; the message names the variable and its value."""


@dataclass(frozen=True)
class Settings:
    """What the environment says, checked."""

    bind_address: str
    port: int
    hostname: str
    shutdown_grace: float

    @property
    def target(self) -> str:
        """The address in gRPC's notation: an IPv6 address stands in brackets."""
        host = f"[{self.bind_address}]" if ":" in self.bind_address else self.bind_address
        return f"{host}:{self.port}"


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Read and check the environment. An empty variable counts as unset. Raises StartError."""
    return Settings(
        bind_address=environ.get("BIND_ADDRESS") or "0.0.0.0",
        port=_port(environ.get("PORT") or "8081"),
        hostname=environ.get("POD_NAME") or environ.get("HOSTNAME") or socket.gethostname(),
        shutdown_grace=_seconds(environ.get("SHUTDOWN_GRACE") or "10"),
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise StartError(f"PORT={text!r} is not a port: use a whole number from 1 to 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:  # also false for nan
        raise StartError(f"SHUTDOWN_GRACE={text!r} is not a time: use a number of seconds, 0 or more")
    return seconds


class Echo:
    """The service of echo.proto, asynchronous as the generated base class is not."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname

    async def Echo(self, request: echo_pb2.EchoRequest, context: grpc.aio.ServicerContext) -> echo_pb2.EchoResponse:
        """Return the content unaltered; the header `hostname` says which replica did."""
        await context.send_initial_metadata((("hostname", self._hostname),))
        return echo_pb2.EchoResponse(content=request.content)


async def build_server(settings: Settings) -> tuple[grpc.aio.Server, health.aio.HealthServicer]:
    """A server with all its services, bound but not started. Raises StartError if it cannot bind."""
    # Without so_reuseport=0 two servers share a port in silence, and each gets some of the calls.
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(settings.hostname), server)

    health_servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    for service in (health.OVERALL_HEALTH, ECHO):
        await health_servicer.set(service, health_pb2.HealthCheckResponse.SERVING)

    reflection.enable_server_reflection((ECHO, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        server.add_insecure_port(settings.target)
    except RuntimeError as exc:  # gRPC does not say why
        raise StartError(
            f"cannot listen on BIND_ADDRESS={settings.bind_address!r} PORT={str(settings.port)!r}: "
            "in use, not permitted, or not an address of this machine"
        ) from exc
    return server, health_servicer


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the calls under way finish within the grace time."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)

    server, health_servicer = await build_server(settings)
    await server.start()
    print(f"echo-grpc: {settings.hostname} listens on {settings.target}", flush=True)

    await stop.wait()
    await health_servicer.enter_graceful_shutdown()  # watchers hear it before the connection goes
    await server.stop(settings.shutdown_grace)
    print(f"echo-grpc: {settings.hostname} stopped", flush=True)


def main() -> int:
    """Run the server; the exit code is 0 after a signal and 1 if it could not start."""
    try:
        asyncio.run(serve(read_settings(os.environ)))
    except StartError as exc:
        print(f"echo-grpc: {exc}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
