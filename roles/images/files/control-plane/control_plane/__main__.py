# SPDX-License-Identifier: GPL-3.0-or-later
"""The process: ``python -m control_plane --help``."""

import argparse
import asyncio
import contextlib
import ipaddress
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

# A failed bind is reported by main(); gRPC's own report of it would be a second and third line on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from ansible_collections.sidecar.mesh.plugins.module_utils import kube

from control_plane import admin, identity, sources, tls
from control_plane.logs import log
from control_plane.metrics import Metrics
from control_plane.server import DiscoveryService, Identify, make_server
from control_plane.store import Store

STOP_SECONDS = 1.0
_NO_RIGHT = (
    "may not ask the API server whose a token is (create tokenreviews.authentication.k8s.io): bind ClusterRole "
    "system:auth-delegator to the service account of this pod"
)


class StartError(Exception):
    """The server cannot start; the text tells why."""


def main() -> int:
    """The exit code: 0 after a signal, 1 if it could not start."""
    try:
        asyncio.run(run(_arguments()))
    except StartError as exc:
        sys.stderr.write(f"control-plane: {exc}\n")
        return 1
    return 0


async def run(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    metrics = Metrics()
    store = Store(lambda seconds, function: loop.call_later(seconds, function).cancel)
    cluster = _connect() if options.namespace else None
    service = DiscoveryService(store, metrics, _identify(options, cluster))
    source, follow = _source(options, store, metrics, cluster)
    server = make_server(service)
    try:
        _bind(server, options)
        pages = admin.pages(store, service, metrics, lambda: source.problem)
        http = await admin.start(options.status[0], options.status[1], pages)
    except (OSError, RuntimeError) as exc:
        raise StartError(f"cannot listen on {options.listen} and {options.status}: {exc}") from exc
    await server.start()
    log("listening", listen=_address(options.listen), status=_address(options.status))

    following = asyncio.create_task(follow())
    await asyncio.wait({following, asyncio.create_task(stop.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        raise StartError(f"cannot follow the configuration: {following.exception()}")
    following.cancel()
    http.close()
    # No grace: clients find another replica, or come back.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.stop(None), STOP_SECONDS)
    log("stopped")


def _connect() -> kube.Cluster:
    try:
        cluster = kube.connect_from_pod()
    except kube.ConnectError as exc:
        raise StartError(str(exc)) from exc
    # While the API server is away, it cannot be told.
    with contextlib.suppress(kube.ApiError):
        if not identity.may_ask(cluster):
            raise StartError(_NO_RIGHT)
    return cluster


def _identify(options: argparse.Namespace, cluster: kube.Cluster | None) -> Identify:
    if cluster:
        return identity.by_token(cluster, options.namespace, options.audience)
    return identity.by_secret(options.token) if options.token else identity.on_loopback


def _source(
    options: argparse.Namespace, store: Store, metrics: Metrics, cluster: kube.Cluster | None
) -> tuple[sources.Source, Callable[[], Coroutine[Any, Any, None]]]:
    """What the configuration is taken from, and what follows its changes."""
    if options.resources:
        file = sources.FileSource(store, metrics, options.resources)
        file.look()
        return file, file.follow
    mesh = sources.MeshSource(store, metrics, options.suffix)
    if options.published:
        return mesh, lambda: sources.follow_machine(mesh, options.published, options.zone)
    where = (options.namespace, options.mesh, options.suffix)
    return mesh, lambda: sources.follow_cluster(mesh, cluster, *where)


def _bind(server: Any, options: argparse.Namespace) -> None:
    target = _address(options.listen)
    if options.tls_certificate:
        server.add_secure_port(target, tls.credentials(options.tls_certificate, options.tls_key))
    else:
        server.add_insecure_port(target)


def _arguments() -> argparse.Namespace:
    description = "Sends the Envoys of a mesh their configuration."
    parser = argparse.ArgumentParser(prog="control_plane", description=description)
    parser.add_argument("--listen", metavar="HOST:PORT", required=True, type=_host_port, help="for Envoys")
    parser.add_argument("--status", metavar="HOST:PORT", required=True, type=_host_port, help="for probes and metrics")
    parser.add_argument("--suffix", default="", help="of the services' names, such as default.svc.cluster.local")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--resources", metavar="FILE", type=Path, help="JSON that has all of it")
    where.add_argument("--published", metavar="FILE", type=Path, help="JSON that says where it is on this machine")
    where.add_argument("--namespace", help="of a mesh on Kubernetes")
    parser.add_argument("--mesh", default="mesh", help="its name, on Kubernetes")
    parser.add_argument("--audience", help="that the tokens of its pods have, on Kubernetes")
    parser.add_argument("--zone", metavar="FILE", type=Path, help="JSON that has the addresses, with --published")
    parser.add_argument("--token", metavar="FILE", type=Path, help="that proxies on this machine have to show")
    parser.add_argument("--tls-certificate", metavar="FILE", type=Path, help="PEM, read again when it changes")
    parser.add_argument("--tls-key", metavar="FILE", type=Path)
    options = parser.parse_args()
    if bool(options.tls_certificate) != bool(options.tls_key):
        parser.error("--tls-certificate and --tls-key go together")
    if bool(options.published) != bool(options.zone):
        parser.error("--published and --zone go together")
    if options.namespace and not options.audience:
        parser.error("--namespace takes --audience: without it nobody would know whose a token is")
    if not options.tls_certificate and not _is_loopback(options.listen[0]):
        parser.error("without TLS --listen must be an address of loopback: the configuration is the mesh's secret")
    if not options.namespace and not _is_loopback(options.listen[0]):
        parser.error("without --namespace --listen must be an address of loopback: there nobody proves who it is")
    return options


def _host_port(text: str) -> tuple[str, int]:
    host, _rest, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address and a port, such as 127.0.0.1:18000")
    return host, number


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _address(where: tuple[str, int]) -> str:
    return f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"{where[0]}:{where[1]}"


if __name__ == "__main__":
    sys.exit(main())
