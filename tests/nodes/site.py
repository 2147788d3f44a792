"""The collection's playbooks on nodes, run as a user would, and what became of the nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from behaviour.machine import BIN, ROOT
from cluster.build import programs

from nodes import fleet as machines
from nodes.places import Fleet, Node

PLAY_SECONDS = 1200
"""The longest a playbook may take."""
WATCHED = ("/etc", "/usr", "/opt/cni", "/var/lib/rancher", "/var/lib/kubelet", "/var/lib/cni", "/root")
"""Where whoever installs k3s writes."""
FOUND = (
    "-xdev -not -name '*.pyc' -not -name __pycache__ -not -path '/root/.ansible*' -printf '%p %y %m %U %s %T@ %l\\n'"
)
LOOKS = (
    f"find {' '.join(WATCHED)} {FOUND} 2>/dev/null | sort",
    "systemctl list-unit-files --no-legend; ls /run/systemd/system",
    "ip -o link | cut -d' ' -f2; ip -o address | cut -d' ' -f2-7; ip route; ip rule",
    "iptables-save | grep -v '^#' | sed 's/ *\\[[0-9:]*\\]//'",
)

Item = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A playbook that ended: its exit code, and the result of every task on every host in their order."""

    code: int
    results: list[tuple[str, str, Item]]
    output: str
    times: list[tuple[str, float]]
    """Of each task, its role and its seconds."""

    @property
    def changed(self) -> list[str]:
        return [f"{host}: {task}" for host, task, result in self.results if result.get("changed")]

    @property
    def failure(self) -> str:
        """What the user is told when it fails."""
        failed = [result for _host, _task, result in self.results if result.get("failed") or result.get("unreachable")]
        items = [item for result in failed for item in [result, *(result.get("results") or [])]]
        return "\n".join(str(item["msg"]) for item in items if item.get("msg"))

    def seconds_of_roles(self) -> dict[str, float]:
        """How long the tasks of each role took, by its name; of tasks without one, by nothing."""
        spent: dict[str, float] = {}
        for role, seconds in self.times:
            spent[role] = spent.get(role, 0) + seconds
        return dict(sorted(spent.items(), key=lambda item: -item[1]))

    def said(self) -> str:
        """Every message of a task that speaks to the user."""
        return "\n".join(str(result["msg"]) for _host, _task, result in self.results if result.get("msg"))

    def result(self, task: str, host: str = "") -> Item:
        """The last result of a task."""
        return [result for at, name, result in self.results if name == task and host in ("", at)][-1]


@dataclass
class Site:
    """An inventory of a fleet's nodes. ``variables`` are those of all hosts, ``of_hosts`` of some; a test changes them
    before it runs a playbook."""

    fleet: Fleet
    variables: Item = field(default_factory=dict)
    of_hosts: dict[str, Item] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.fleet.folder / "home"

    @property
    def kubeconfig(self) -> Path:
        return self.home / ".kube/config"

    def run(self, playbook: str, *options: str) -> Run:
        with self._started(playbook, options, {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json"}) as process:
            output, _nothing = process.communicate(timeout=PLAY_SECONDS)
        return run_of(process.returncode, output)

    def must_run(self, playbook: str, *options: str) -> Run:
        run = self.run(playbook, *options)
        assert run.code == 0, run.failure or run.output[-3000:]
        return run

    @contextmanager
    def until(self, playbook: str, task: str, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A playbook that is in the middle of a task, or that had nothing to do there and ended well. It is killed with
        the end of the block, if it still runs."""
        with self._started(playbook, options, {}) as process:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("TASK [") and task in line:
                    break
            else:
                assert process.wait() == 0, "".join(said)[-3000:]
            yield process

    @contextmanager
    def _started(
        self, playbook: str, options: tuple[str, ...], more: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[str]]:
        inventory = self.fleet.folder / "site.yml"
        hosts = {"all": {"vars": self.variables, "hosts": self.of_hosts}}
        inventory.write_text(yaml.safe_dump(hosts))
        self.home.mkdir(exist_ok=True)
        command = [
            BIN / "ansible-playbook",
            "-i",
            self.fleet.inventory,
            "-i",
            inventory,
            f"sidecar.mesh.{playbook}",
            *options,
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "KUBECONFIG"))}
        process = subprocess.Popen(
            command,
            cwd=self.home,
            env={
                **kept,
                "HOME": str(self.home),
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_DIFF_ALWAYS": "true",
                **more,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def kubectl(self, *words: str) -> str:
        """What the API server answers to the user, whose kubeconfig the playbooks wrote."""
        done = subprocess.run(
            [programs() / "kubectl", "--context", self.variables.get("k3s_context", "k3s"), *words],
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def nodes(self) -> dict[str, Item]:
        """Node objects by their names."""
        return {
            node["metadata"]["name"]: node for node in json.loads(self.kubectl("get", "nodes", "-o", "json"))["items"]
        }


def run_of(code: int, output: str) -> Run:
    """What a run of ansible-playbook with the JSON callback tells."""
    start = output.find("{\n")
    plays = json.JSONDecoder().raw_decode(output[start:])[0]["plays"] if start >= 0 else []
    results = [
        (host, task["task"]["name"].rpartition(" : ")[2], result)
        for play in plays
        for task in play["tasks"]
        for host, result in task["hosts"].items()
    ]
    times = [
        (_role(task["task"]["name"]), _seconds(task["task"]["duration"])) for play in plays for task in play["tasks"]
    ]
    return Run(code, results, output, times)


def _role(task: str) -> str:
    return task.rpartition(" : ")[0].rpartition(".")[2]


def _seconds(duration: Mapping[str, str]) -> float:
    begin, end = (datetime.fromisoformat(duration[key]) if key in duration else None for key in ("start", "end"))
    return (end - begin).total_seconds() if begin and end else 0


def state(node: Node) -> str:
    """All that an installation could leave on a node: files, units, links, addresses, routes and rules."""
    return machines.on(node, "sh", "-c", "; ".join(LOOKS))
