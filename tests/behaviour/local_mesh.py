"""A mesh on this machine, brought up and changed by the collection's own playbooks, as a user would."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from behaviour.machine import BIN, COLLECTIONS, ROOT, alive, wait_until

TOOLS = ROOT / ".cache" / "local-mesh"
"""Stands for the user's data folder. The first run of all installs the tools there, for every mesh of every test."""
PLAY_SECONDS = 600
"""The longest a playbook may take; the first run of all installs the tools."""

Item = dict[str, Any]


# What an inventory says


def express(name: str, **more: Any) -> Item:
    """A service that greets with its name and, below that, with the answers of its upstreams."""
    service = {
        "name": name,
        "command": ["node", "server.js"],
        "directory": "$(APPLICATIONS)/express",
        "environment": {"SERVICE_NAME": name},
        "port": 8081,
    }
    for upstream in more.pop("upstreams", []):
        call(service, **upstream)
    return service | more


def call(caller: Item, **upstream: Any) -> None:
    """Have an express service call another one."""
    caller.setdefault("upstreams", []).append(upstream)
    calls = [f"http://$(UPSTREAM_{entry['service'].upper()})" for entry in caller["upstreams"]]
    caller["environment"]["UPSTREAMS"] = ",".join(calls)


def greeting(name: str) -> str:
    return f"Hello I am a simple express api {name}"


# What a run tells


@dataclass(frozen=True)
class Play:
    """A playbook that ended: its exit code, and the result of every task in their order."""

    code: int
    tasks: list[tuple[str, Item]]
    output: str

    @property
    def changed(self) -> list[str]:
        """Names of the tasks that changed something."""
        return [name for name, result in self.tasks if result.get("changed")]

    @property
    def failure(self) -> str:
        """What the user is told when it fails."""
        failed = next((result for _rest, result in self.tasks if result.get("failed")), {})
        result = next((item for item in failed.get("results") or [] if item.get("failed")), failed)
        return f"{result.get('msg', result)}\n{result.get('stderr', '')}".strip() if failed else ""

    def programs(self, key: str) -> set[str]:
        """Programs that all steps of the run together ``started``, ``restarted`` or ``stopped``, or would have."""
        return {name for result in self._results() if result.get("changed") for name in result.get(key) or []}

    def batches(self, key: str) -> list[set[str]]:
        """The same, step by step."""
        return [set(result[key]) for result in self._results() if result.get("changed") and result.get(key)]

    def files(self, folder: Path) -> dict[str, str]:
        """``{path: text in the end}`` of the files below a folder of which the run shows a change; of a folder, whether
        it is there."""
        shown = (pair for result in self._results() for pair in _shown(result, folder))
        return dict(shown)

    def _results(self) -> Iterator[Item]:
        for _rest, result in self.tasks:
            yield from result.get("results", [result])


def _shown(result: Item, folder: Path) -> Iterator[tuple[str, str]]:
    """Every file below a folder in a task's diff, with its text after the task."""
    diffs = result.get("diff") or []
    for diff in diffs if isinstance(diffs, list) else [diffs]:
        # In check mode, where the file is new, Ansible's template says its path only here.
        asked = result.get("invocation", {}).get("dest")
        paths = [diff.get("after_header"), result.get("dest"), result.get("path"), asked]
        path = next((path for path in paths if str(path).startswith(f"{folder}/")), None)
        if path and diff.get("before") != diff.get("after"):
            after = diff.get("after")
            yield path, str(after.get("state")) if isinstance(after, dict) else str(after)


# What runs


class Mesh:
    """A mesh of its own name. ``services``, ``fronts``, ``checks`` and ``settings`` (any other variables) are its
    inventory, which a test changes before it runs a playbook."""

    def __init__(self, home: Home, name: str) -> None:
        self.home = home
        self.name = name
        self.services: list[Item] = []
        self.fronts: list[Item] = []
        self.checks: list[Item] = []
        self.settings: Item = {"mesh_dns": {"refresh_rate": "1s", "jitter": "0.1s"}}
        self._base: tuple[Any, ...] = ()
        self._good: tuple[Any, ...] = ()

    @property
    def state(self) -> Path:
        return self.home.states / self.name

    def service(self, name: str) -> Item:
        return next(service for service in self.services if service["name"] == name)

    def front(self) -> Item:
        return self.fronts[0]

    # The playbooks

    def run(self, playbook: str = "site", *options: str, prefix: Sequence[str] = (), **variables: str) -> Play:
        """A playbook of the collection by its full name, from a folder that has nothing to do with the checkout."""
        inventory = self.home.folder / f"{self.name}.json"
        inventory.write_text(json.dumps(self._inventory(), indent=1))
        command = [*prefix, BIN / "ansible-playbook", "-i", inventory, f"sidecar.mesh.{playbook}", *options]
        done = subprocess.run(
            command,
            cwd=self.home.folder,
            env=self.home.environment() | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        play = play_of(done)
        if play.code == 0 and playbook == "site" and "--check" not in options:
            self._good = self._now()
        return play

    def must_run(self, playbook: str = "site", *options: str) -> Play:
        play = self.run(playbook, *options)
        assert play.code == 0, play.failure or play.output
        return play

    def status(self) -> list[str]:
        """What the playbook tells of the mesh, which it leaves as it is."""
        play = self.must_run("status")
        assert play.changed == []
        (lines,) = (result["msg"] for name, result in play.tasks if name == "Show how the mesh is")
        return list(lines)

    def predict(self) -> Play:
        """What the next run would do. Fails when that changed anything."""
        before = self.files(), self.pids()
        play = self.must_run("site", "--check", "--diff")
        assert (self.files(), self.pids()) == before, "check mode changed something"
        return play

    def keep(self) -> None:
        """This inventory, which runs now, is what back() comes back to."""
        self._base = copy.deepcopy((self.services, self.fronts, self.checks, self.settings))

    def back(self) -> None:
        """The inventory as keep() knows it; and what runs, when a test has left something else."""
        self.services, self.fronts, self.checks, self.settings = copy.deepcopy(self._base)
        if self._now() != self._good:
            self.must_run()

    def _inventory(self) -> Item:
        variables = {
            "mesh_engine": "local",
            "mesh_name": self.name,
            "mesh_services": self.services,
            "mesh_front_proxies": self.fronts,
            "mesh_checks": self.checks,
            **self.settings,
        }
        host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        return {"all": {"hosts": {"localhost": host}, "vars": variables}}

    def _now(self) -> tuple[Any, ...]:
        return json.dumps(self._inventory()), self.files(), sorted(self.pids())

    # What is there

    def pids(self) -> dict[str, int]:
        """The processes of the mesh by the name of their program, without supervisord."""
        named = {environment_of(pid).get("SUPERVISOR_PROCESS_NAME", ""): pid for pid in processes_of(self.state)}
        return {name: pid for name, pid in sorted(named.items()) if name}

    def envoys(self) -> dict[str, int]:
        return {name: pid for name, pid in self.pids().items() if name.endswith((".sidecar", ".front"))}

    def supervisord(self) -> int:
        return int((self.state / "supervisord.pid").read_text())

    def texts(self) -> dict[str, str]:
        """The text of every file of the state folder, by its path, but of those that processes write to."""
        return {
            str(path): path.read_text(errors="replace")
            for path in sorted(self.state.rglob("*"))
            if path.is_file() and path.parent.name != "logs" and path.name != "supervisord.pid"
        }

    def files(self) -> dict[str, str]:
        """The same as hashes, which are short enough to be shown when they differ."""
        return {
            str(Path(path).relative_to(self.state)): hashlib.sha256(text.encode()).hexdigest()[:12]
            for path, text in self.texts().items()
        }

    def log(self, program: str) -> str:
        return (self.state / "logs" / f"{program}.log").read_text(errors="replace")

    def address(self, replica: str) -> str:
        """The loopback address of a replica, from the DNS server's file."""
        records = json.loads((self.state / "zone.json").read_text())["records"]
        workload, _rest, index = replica.rpartition("-")
        return str(next(ips[int(index) - 1] for name, ips in records.items() if name.startswith(f"{workload}.")))

    def admin(self, proxy: str, path: str) -> str:
        """An answer of an Envoy's admin interface, whose address is the first in its bootstrap."""
        lines = (self.state / "proxies" / proxy / "bootstrap.yaml").read_text().splitlines()
        address, port = (
            next(line.split()[-1] for line in lines if line.strip().startswith(key)) for key in ("address: 1", "port_v")
        )
        with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def end(self) -> None:
        """Ends every process and removes every file, whatever state the mesh is in."""

        def gone() -> bool:
            # Supervisord may start one anew until it has ended itself.
            for pid in processes_of(self.state):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not processes_of(self.state)

        wait_until(gone, f"no process of {self.name} is left")
        shutil.rmtree(self.state, ignore_errors=True)
        # As role local marks the mesh among those that use the tools.
        mark = hashlib.sha1(str(self.state).encode(), usedforsecurity=False).hexdigest()
        shutil.rmtree(TOOLS / "sidecar-mesh" / "meshes" / mark, ignore_errors=True)


class Home:
    """Where meshes lie side by side. Its folder's name is short, because the path of a unix socket has to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.states = folder / "sidecar-mesh"
        self.meshes: list[Mesh] = []
        # The last mesh that uses the tools takes them away with it. Here another one is always left.
        (TOOLS / "sidecar-mesh" / "meshes" / "tests").mkdir(parents=True, exist_ok=True)

    def environment(self) -> dict[str, str]:
        return environment(self.folder) | {"XDG_DATA_HOME": str(TOOLS)}

    def mesh(self, name: str = "") -> Mesh:
        """A mesh that does not run yet; without a name, one that is surely nobody else's."""
        mesh = Mesh(self, name or f"t{secrets.token_hex(3)}")
        self.meshes.append(mesh)
        return mesh


@contextlib.contextmanager
def new_home() -> Iterator[Home]:
    """A home that ends with the block, and with it all of its meshes, whatever happened."""
    home = Home(Path(tempfile.mkdtemp(prefix="mesh-")))
    home.folder.chmod(0o755)
    try:
        yield home
    finally:
        for mesh in home.meshes:
            mesh.end()
        shutil.rmtree(home.folder)


def environment(folder: Path) -> dict[str, str]:
    """In which ansible-playbook runs as on a machine that knows this collection and nothing else of ours."""
    ours = ("ANSIBLE_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "XDG_", "SIDECAR_MESH")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return inherited | {
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONFIG": str(Path(__file__).with_name("ansible.cfg")),
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
        "XDG_STATE_HOME": str(folder),
    }


def processes_of(state: Path) -> list[int]:
    """Processes that say they belong to the mesh in a state folder, and its supervisord."""
    pids = [int(process.name) for process in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if alive(pid) and _belongs(pid, state)]


def _belongs(pid: int, state: Path) -> bool:
    mine = environment_of(pid).get("SIDECAR_MESH") == str(state)
    return mine or f"{state}/supervisord.conf" in _words(pid, "cmdline")


def environment_of(pid: int) -> dict[str, str]:
    """What a process was started with; nothing when it is gone."""
    pairs = (word.partition("=") for word in _words(pid, "environ"))
    return {name: value for name, _rest, value in pairs}


def _words(pid: int, file: str) -> list[str]:
    try:
        return Path(f"/proc/{pid}/{file}").read_text(errors="replace").split("\0")
    except OSError:
        return []


def get(port: int, path: str = "/") -> tuple[int, dict[str, str], str]:
    """Status, headers and body of one request to localhost."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status, headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, {}, error.read().decode()


def play_of(done: subprocess.CompletedProcess[str]) -> Play:
    """What a run of ansible-playbook with the JSON callback tells."""
    output = done.stdout + done.stderr
    start = done.stdout.find("{\n")
    data = json.JSONDecoder().raw_decode(done.stdout[start:])[0] if start >= 0 else {"plays": []}
    results = [
        (task["task"]["name"].rpartition(" : ")[2], task["hosts"]["localhost"])
        for play in data["plays"]
        for task in play["tasks"]
        if "localhost" in task["hosts"]
    ]
    return Play(done.returncode, results, output)
