# SPDX-License-Identifier: GPL-3.0-or-later
"""The process: ``python -m control_plane --help``."""

import argparse
import asyncio
import contextlib
import ipaddress
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

# A failed bind is reported by main(); gRPC's own report of it would be a second and third line on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from control_plane import admin, tls
from control_plane.encode import EncodeError
from control_plane.logs import log
from control_plane.metrics import Metrics
from control_plane.server import DiscoveryService, Identity, make_server
from control_plane.store import Store

POLL_SECONDS = 0.05
STOP_SECONDS = 1.0


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
    service = DiscoveryService(store, metrics, identify_loopback)
    source = FileSource(options.resources, store, metrics)
    source.look()
    server = make_server(service)
    try:
        _bind(server, options)
        pages = admin.pages(store, service, metrics, lambda: source.problem)
        http = await admin.start(options.admin[0], options.admin[1], pages)
    except (OSError, RuntimeError) as exc:
        raise StartError(f"cannot listen on {options.listen} and {options.admin}: {exc}") from exc
    await server.start()
    log("listening", listen=_address(options.listen), admin=_address(options.admin))

    watch = asyncio.create_task(source.watch())
    await stop.wait()
    watch.cancel()
    http.close()
    # No grace: clients find another replica, or come back.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(server.stop(None), STOP_SECONDS)
    log("stopped")


class FileSource:
    """The configuration of a file: ``{proxy: {"workload": name, "resources": ordering.Resources}}`` as JSON."""

    def __init__(self, path: Path, store: Store, metrics: Metrics) -> None:
        self.problem: str | None = None
        """What is wrong with the file as it is now; what was served before still is."""
        self._path = path
        self._store = store
        self._metrics = metrics
        self._seen: tuple[int, ...] = ()

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.look()

    def look(self) -> None:
        """Reads the file if it changed since the last look."""
        try:
            found = self._path.stat()
            stamp = found.st_mtime_ns, found.st_size, found.st_ino
            if stamp != self._seen:
                self._seen = stamp
                self._load()
        except OSError as exc:
            if self._seen or self.problem is None:
                self._failed(str(exc))
            self._seen = ()

    def _load(self) -> None:
        try:
            change = self._store.set(_mesh(json.loads(self._path.read_bytes())))
        except (ValueError, RecursionError) as exc:  # EncodeError is a ValueError, as are those of JSON
            self._failed(str(exc) if isinstance(exc, EncodeError) else f"{self._path}: {exc}")
            return
        self.problem = None
        self._metrics.configuration_failed = False
        self._metrics.configurations["loaded"] += 1
        log(
            "configuration",
            version=self._store.version,
            proxies=len(self._store.proxies),
            changed=len(change.changed),
            removed=len(change.removed),
            at_once=change.at_once,
        )

    def _failed(self, problem: str) -> None:
        self.problem = problem
        self._metrics.configuration_failed = True
        self._metrics.configurations["failed"] += 1
        log("configuration", error=problem)


def _mesh(data: Any) -> dict[str, Any]:
    """The data of a file, checked as far as it is looked into. Raises ValueError."""
    if not isinstance(data, dict):
        raise ValueError("is not a dictionary of proxies")
    for name, item in data.items():
        kinds = item.get("resources") if isinstance(item, dict) else None
        if not isinstance(kinds, dict) or not isinstance(item.get("workload"), str):
            raise ValueError(f"proxy {name}: has no workload, or no resources")
        if not all(isinstance(each, dict) for each in kinds.values()):
            raise ValueError(f"proxy {name}: resources are dictionaries by name")
    return data


async def identify_loopback(context: Any) -> Identity | None:
    """Whoever is on this machine may ask for every proxy."""
    kind, _rest, address = context.peer().partition(":")
    host = address.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D")
    return Identity() if kind in ("ipv4", "ipv6") and _is_loopback(host) else None


def _bind(server: Any, options: argparse.Namespace) -> None:
    target = _address(options.listen)
    if options.tls_certificate:
        server.add_secure_port(target, tls.credentials(options.tls_certificate, options.tls_key))
    else:
        server.add_insecure_port(target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="control_plane", description="xDS server for the Envoys of a mesh.")
    parser.add_argument("--listen", metavar="HOST:PORT", required=True, type=_host_port, help="for Envoys")
    parser.add_argument("--admin", metavar="HOST:PORT", required=True, type=_host_port, help="for probes and metrics")
    parser.add_argument(
        "--resources", metavar="FILE", required=True, type=Path, help="JSON, read again when it changes"
    )
    parser.add_argument("--tls-certificate", metavar="FILE", type=Path, help="PEM, read again when it changes")
    parser.add_argument("--tls-key", metavar="FILE", type=Path)
    options = parser.parse_args()
    if bool(options.tls_certificate) != bool(options.tls_key):
        parser.error("--tls-certificate and --tls-key go together")
    if not options.tls_certificate and not _is_loopback(options.listen[0]):
        parser.error("without TLS --listen must be an address of loopback: the configuration is the mesh's secret")
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
