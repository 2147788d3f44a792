"""How soon an Envoy follows a replica that comes or goes, by each way of telling it; and what a control plane of a
thousand proxies takes.

What is told is one and the same: the other of two replicas is in use from now on.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.control_plane import published
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import load
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.local_plan import local_plan, zone
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from behaviour.envoys import Mesh, write
from behaviour.machine import free_port, wait_until

from bench import inventories
from bench.measuring import ROOT, Row, memory, processor_of, run, share
from bench.traffic import ask, connect

APPLICATION = ROOT / "roles" / "images" / "files" / "control-plane"
COLLECTIONS = ROOT / ".collections"
LEAN = Path(__file__).with_name("go-control-plane")
SUFFIX = "default.svc.cluster.local"
TOOLS = ROOT / ".cache" / "bench-control-plane"
# The programs beside this one need both.
MODULES = {"PYTHONPATH": f"{COLLECTIONS}:{APPLICATION}"}
TOKEN = "bench"
CHANGES, CHANGES_OF_DNS = 300, 12
SIZE, SMALL, CHANGED = 1000, 100, 20
START_SECONDS = 60
LIMIT_MS, LIMIT_MB, LIMIT_SECONDS = 10, 150, 10

Item = dict[str, Any]


def rows() -> list[Row]:
    _install()
    return [*_endpoint_rows(), *_size_rows()]


def _install() -> None:
    """The control plane's packages, in an environment of their own."""
    lock = APPLICATION / "requirements.lock"
    if not (TOOLS / lock.name).exists() or (TOOLS / lock.name).read_text() != lock.read_text():
        run([sys.executable, "-m", "venv", "--clear", TOOLS])
        run([TOOLS / "bin" / "pip", "install", "--quiet", "--no-compile", "--require-hashes", "--requirement", lock])
        (TOOLS / lock.name).write_text(lock.read_text())


# How soon


def _endpoint_rows() -> list[Row]:
    sent = sorted(_times("ads", CHANGES))
    files = sorted(_times("files", CHANGES))
    asked = sorted(_times("dns", CHANGES_OF_DNS))
    what = "A replica's change to the first request on it, by the control plane"
    return [
        Row(f"{what}, p50", share(sent, 0.5), "endpoints in a file that Envoy watches", share(files, 0.5), unit="ms"),
        Row(f"the same, p99 of {CHANGES}", share(sent, 0.99), "the limit", LIMIT_MS, 1, "ms"),
        Row("the same, p50", share(sent, 0.5), "DNS, asked every second", share(asked, 0.5), unit="ms"),
    ]


def _times(way: str, count: int) -> list[float]:
    """Milliseconds from a change to the first request that follows it."""
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as folder, contextlib.ExitStack() as stack:
        mesh = Mesh(Path(folder), _inventory(way, None))
        stack.callback(mesh.stop)
        if way == "ads":
            mesh.written = lambda: stack.callback(ControlPlane(mesh.folder, mesh.model).stop)
        mesh.start()
        changes = {chosen: _told(way, mesh, chosen) for chosen in ("b-1", "b-2")}
        return [seconds * 1e3 for seconds in _changes(mesh, changes, count)]


def _inventory(way: str, resting: str | None) -> str:
    """A front proxy and two replicas, of which one may rest; as Mesh takes it."""
    service = {"name": "b", "port": 8081, "replicas": 2, "sidecar": False}
    front = {"name": "front", "listeners": [{"port": "FRONT"}], "routes": [{"prefix": "/", "service": "b"}]}
    settings = {
        "config_delivery": "ads" if way == "ads" else "files",
        "dns": {"refresh_rate": "1s", "jitter": "0.01s"},
        "resting": [resting] if resting else [],
    }
    services = [{**service, "discovery": "eds" if way == "files" else "dns"}]
    inventory = {"services": services, "front_proxies": [front], "settings": settings}
    return json.dumps(inventory).replace('"FRONT"', "FRONT")


def _told(way: str, mesh: Mesh, chosen: str) -> tuple[Path, str]:
    """The file, and its text, that says that this replica alone is in use."""
    model = mesh.built(_inventory(way, "b-2" if chosen == "b-1" else "b-1"))
    if way == "files":
        return mesh.config("front-1") / "eds.b.yaml", mesh_files(model)[0]["files"]["eds.b.yaml"]
    return mesh.folder / "zone.json", json.dumps(zone(model))


def _changes(mesh: Mesh, changes: dict[str, tuple[Path, str]], count: int) -> Iterator[float]:
    connection = connect(int(mesh.front().rpartition(":")[2]))
    # At first both replicas answer by turns.
    write(*changes["b-2"])
    while any(b"hostname: b-1\r\n" in ask(connection) for _request in range(10)):
        pass
    for number in range(count):
        chosen = f"b-{number % 2 + 1}"
        wanted = f"hostname: {chosen}\r\n".encode()
        begin = time.perf_counter()
        write(*changes[chosen])
        while wanted not in ask(connection):
            pass
        yield time.perf_counter() - begin
        time.sleep(0.03)


# A control plane


class ControlPlane:
    """A process of it that sends what is published in a folder."""

    def __init__(self, folder: Path, model: Item) -> None:
        self.folder = folder
        (folder / "control-plane").mkdir(exist_ok=True)
        (folder / "control-plane" / "token").write_text(TOKEN)
        self._publish(model)
        paths = {
            **dict.fromkeys(("python", "envoy", "path", "applications", "dns_server"), ""),
            "state": str(folder),
            "control_plane": {"python": str(TOOLS / "bin" / "python"), "modules": [str(COLLECTIONS), str(APPLICATION)]},
            "versions": dict.fromkeys(("envoy", "applications", "dns_server", "control_plane"), ""),
        }
        plan = local_plan(model, paths)
        program = next(program for program in plan["programs"] if program["name"] == "control-plane")
        self.status = plan["control_plane"]["status"]
        self.target = program["command"][program["command"].index("--listen") + 1]
        self._log = (folder / "control-plane.log").open("wb")
        begin = time.perf_counter()
        self._process = subprocess.Popen(
            program["command"], env={**os.environ, **program["environment"]}, stdout=self._log, stderr=self._log
        )
        wait_until(self._is_ready, "the control plane is ready", START_SECONDS)
        self.seconds = time.perf_counter() - begin
        self.pid = self._process.pid

    def _publish(self, model: Item) -> None:
        write(self.folder / "zone.json", json.dumps(zone(model)))
        entries = {}
        for proxy in mesh_files(model):
            for name, text in proxy["files"].items():
                write(Path(proxy["folder"], name), text)
            entries[proxy["name"]] = published(proxy, proxy["files"])
        write(self.folder / "control-plane" / "published.json", json.dumps({"proxies": entries}))

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{self.status}/ready", timeout=60):
            return True
        return False

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


# A thousand proxies


def _size_rows() -> list[Row]:
    small, large = _Size(SMALL), _Size(SIZE)
    of = f"{SIZE:,} services and their {SIZE:,} proxies"
    lean = large.lean
    beside = [
        Row("Memory of it", large.memory, "go-control-plane, the same resources", lean.memory, unit="MB"),
        Row("First push of all", large.seconds, "go-control-plane, the same resources", lean.seconds),
        Row("Processor time of it", large.processor, "go-control-plane, the same resources", lean.processor),
    ]
    return [
        Row(f"Memory (RSS) of the control plane of {of}, all connected", large.memory, "the limit", LIMIT_MB, 1, "MB"),
        Row("First push of all, from the first connection", large.seconds, "the limit", LIMIT_SECONDS, 1),
        Row("A replica's change there: bytes sent", large.bytes, f"of {SMALL} services", small.bytes, 1.1, "bytes"),
        Row("the same: proxies that are sent something", large.proxies, f"of {SMALL}", small.proxies, 1, "proxies"),
        Row("the same: processor time", large.change * 1e3, f"of {SMALL}", small.change * 1e3, 1.5, "ms"),
        Row("Start to ready", large.start, f"of {SMALL}, by the same factor", small.start * SIZE / SMALL),
        *beside,
    ]


class _Size:
    """What a mesh of so many services takes."""

    def __init__(self, size: int) -> None:
        inventory = inventories.mesh(size)
        services = [{**service, "command": ["true"], "replicas": 1} for service in inventory["mesh_services"]]
        with TemporaryDirectory(prefix="sidecar-mesh-bench-") as folder, contextlib.ExitStack() as stack:
            settings = {"engine": "local", "config_delivery": "ads", "state_path": folder, "name": f"bench-{size}"}
            model = build_model(services, [], settings)
            sender = ControlPlane(Path(folder), model)
            stack.callback(sender.stop)
            self.start = sender.seconds
            before = processor_of(sender.pid)
            clients = stack.enter_context(_connected(sender.target, model))
            first = json.loads(_line(clients))
            self.seconds, self.memory = first["seconds"], memory(sender.pid)
            self.processor = processor_of(sender.pid) - before
            self._change(sender, model, clients)
            self.lean = _Lean(Path(folder), model) if size == SIZE else None

    def _change(self, sender: ControlPlane, model: Item, clients: Any) -> None:
        """Replicas of services that five others call move, one service after the other."""
        records = zone(model)
        names = sorted(records["records"])[:CHANGED]
        _next(clients)
        before = processor_of(sender.pid)
        for name in names:
            records["records"][name] = ["127.0.0.1"]
            write(sender.folder / "zone.json", json.dumps(records))
            time.sleep(0.1)
        found = _next(clients)
        self.change = (processor_of(sender.pid) - before) / CHANGED
        self.bytes, self.proxies = found["bytes"] / CHANGED, found["proxies"] / CHANGED


class _Lean:
    """The same resources sent by the least that go-control-plane takes."""

    def __init__(self, folder: Path, model: Item) -> None:
        program, snapshots = TOOLS / "go-control-plane", folder / "snapshots.jsonl"
        run(["go", "build", "-o", program, "."], cwd=LEAN)
        made = run(
            [TOOLS / "bin" / "python", Path(__file__).with_name("snapshots.py"), SUFFIX],
            environment={**MODULES, "FOLDER": str(folder)},
        )
        snapshots.write_text(made)
        target = f"127.0.0.1:{free_port()}"
        with (folder / "go-control-plane.log").open("wb") as log:
            process = subprocess.Popen([program, target, snapshots], stdout=log, stderr=log)
        try:
            wait_until(lambda: _listens(target), "go-control-plane listens", START_SECONDS)
            before = processor_of(process.pid)
            with _connected(target, model) as clients:
                self.seconds = json.loads(_line(clients))["seconds"]
                self.processor = processor_of(process.pid) - before
                self.memory = memory(process.pid)
        finally:
            process.kill()
            process.wait()


def _listens(target: str) -> bool:
    host, port = target.split(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


@contextlib.contextmanager
def _connected(target: str, model: Item) -> Iterator[Any]:
    """A process that is all proxies."""
    command = [TOOLS / "bin" / "python", Path(__file__).with_name("streams.py"), target, TOKEN]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    process = subprocess.Popen(
        [*map(str, command)], env={**os.environ, **MODULES}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    wanted = {proxy["name"]: _names(proxy["files"]) for proxy in mesh_files(model)}
    process.stdin.write(json.dumps(wanted) + "\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _names(files: dict[str, str]) -> dict[str, list[str]]:
    """What an Envoy with these files asks for by name."""
    clusters = [
        item for item in load(files["cds.yaml"])["resources"] if "cluster_type" in item or item.get("type") == "EDS"
    ]
    routes = [name.removeprefix("rds.").removesuffix(".yaml") for name in files if name.startswith("rds.")]
    return {"endpoints": [item["name"] for item in clusters], "routes": routes}


def _next(clients: Any) -> Item:
    """What came since it was asked last."""
    clients.stdin.write("\n")
    clients.stdin.flush()
    return dict(json.loads(_line(clients)))


def _line(clients: Any) -> str:
    line = clients.stdout.readline()
    if not line:
        raise SystemExit("the clients of the control plane ended")
    return str(line)
