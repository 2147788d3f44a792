"""Roles run as a user would, on the tests' cluster."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from behaviour.local_mesh import Play, play_of
from behaviour.machine import BIN, ROOT
from kubernetes import client, config

PLAY_SECONDS = 600

Item = dict[str, Any]

_BEGIN: Item = {"name": "(a step begins)", "ansible.builtin.debug": {"msg": ""}}
_REFUSED = "(the step failed)"


def run_role(folder: Path, role: str, variables: Item, *options: str, **environment: str) -> Play:
    """A role of the collection, in a play of its own. ``tasks_from`` among the variables names another entry point."""
    return _run(folder, [_include(role, variables)], options, environment)


def run_steps(folder: Path, role: str, steps: Sequence[Item], *options: str) -> list[Play]:
    """The role once for each set of variables, in one play, which costs far less than many; a step that fails ends only
    itself, and its ``code`` says so."""
    tasks: list[Item] = []
    for step in steps:
        rescue = [{"name": _REFUSED, "ansible.builtin.debug": {"msg": ""}}]
        tasks += [_BEGIN, {"block": [_include(role, step)], "rescue": rescue}]
    whole = _run(folder, tasks, options, {})
    assert whole.code == 0, whole.failure or whole.output
    starts = [at for at, (name, _rest) in enumerate(whole.tasks) if name == _BEGIN["name"]]
    parts = [whole.tasks[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return [Play(int(any(name == _REFUSED for name, _rest in part)), part, whole.output) for part in parts]


def must_run(folder: Path, role: str, variables: Item, *options: str) -> Play:
    play = run_role(folder, role, variables, *options)
    assert play.code == 0, play.failure or play.output
    return play


def _include(role: str, variables: Item) -> Item:
    include = {"name": f"sidecar.mesh.{role}", "tasks_from": variables.get("tasks_from", "main")}
    given = {key: value for key, value in variables.items() if key != "tasks_from"}
    return {"ansible.builtin.include_role": include, "vars": given}


def _run(folder: Path, tasks: list[Item], options: Sequence[str], environment: Mapping[str, str]) -> Play:
    hosts = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
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
    return play_of(done)


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
