"""Roles run as a user would, on the tests' cluster."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from behaviour.local_mesh import Play as PlaybookRun
from kubernetes import client, config

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
PLAY_SECONDS = 600

Item = dict[str, Any]


class Play(PlaybookRun):
    """A play that ended, and what it set."""

    @property
    def facts(self) -> Item:
        """What the play set."""
        return {key: value for _rest, result in self.tasks for key, value in result.get("ansible_facts", {}).items()}


def run_role(folder: Path, role: str, variables: Item, *options: str, **environment: str) -> Play:
    """A role of the collection, in a play of its own. ``tasks_from`` among the variables names another entry point."""
    include = {"name": f"sidecar.mesh.{role}", "tasks_from": variables.get("tasks_from", "main")}
    given = {key: value for key, value in variables.items() if key != "tasks_from"}
    task = {"ansible.builtin.include_role": include, "vars": given}
    hosts = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    hosts["vars"] = {"ansible_python_interpreter": sys.executable}
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([hosts]))
    done = subprocess.run(
        [BIN / "ansible-playbook", "-i", "localhost,", *options, playbook],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    return _play(done)


def must_run(folder: Path, role: str, variables: Item, *options: str) -> Play:
    play = run_role(folder, role, variables, *options)
    assert play.code == 0, play.failure or play.output
    return play


def _play(done: subprocess.CompletedProcess[str]) -> Play:
    start = done.stdout.find("{\n")
    data = json.JSONDecoder().raw_decode(done.stdout[start:])[0] if start >= 0 else {"plays": []}
    results = [
        (task["task"]["name"].rpartition(" : ")[2], task["hosts"]["localhost"])
        for play in data["plays"]
        for task in play["tasks"]
        if "localhost" in task["hosts"]
    ]
    return Play(done.returncode, results, done.stdout + done.stderr)


def cluster_file() -> Path:
    """The kubeconfig of the tests' cluster, which is started if it does not run."""
    if named := os.environ.get("KUBECONFIG"):
        return Path(named)
    from cluster.lifecycle import up

    return up()


@contextlib.contextmanager
def namespace(kubeconfig: Path, prefix: str) -> Iterator[tuple[str, client.CoreV1Api]]:
    """A namespace of its own that ends with the block, and a client."""
    config.load_kube_config(str(kubeconfig))
    core, name = client.CoreV1Api(), f"{prefix}-{secrets.token_hex(3)}"
    core.create_namespace({"metadata": {"name": name}})
    try:
        yield name, core
    finally:
        core.delete_namespace(name)
