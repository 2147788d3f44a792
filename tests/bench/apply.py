"""What apply takes for 1,000 objects, and kubectl for the same file, on the tests' cluster or that of KUBECONFIG.

All of Ansible is part of ours: a play of one task. kubectl tries nothing beforehand; what it takes is the floor.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.lifecycle import up
from cluster.places import PROGRAMS

from bench.measuring import BIN, ROOT, Row, run

WORKLOADS = 200
REPETITIONS = 2

Object = dict[str, Any]


def kubectl_and_cluster() -> tuple[str, str]:
    """The kubectl, and the kubeconfig of the cluster, which is started if it does not run."""
    kubeconfig = os.environ.setdefault("KUBECONFIG", str(up()))
    kubectl = shutil.which("kubectl", path=f"{PROGRAMS}:{os.environ['PATH']}")
    if kubectl is None:
        raise SystemExit("kubectl is not on PATH; install it")
    return kubectl, kubeconfig


def rows() -> list[Row]:
    kubectl, _kubeconfig = kubectl_and_cluster()
    name = f"apply-{secrets.token_hex(4)}"
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as temporary:
        folder = Path(temporary)
        try:
            first, unchanged = _measure(kubectl, name, folder)
        finally:
            run([kubectl, "delete", "namespace", "--wait=false", "--ignore-not-found", f"{name}-a", f"{name}-b"])
    count = 5 * WORKLOADS
    return [
        Row(f"apply of {count:,} new objects", *first, 1.5),
        Row(f"apply of {count:,} unchanged objects", *unchanged, 1),
    ]


def _measure(kubectl: str, name: str, folder: Path) -> tuple[tuple[float, str, float], tuple[float, str, float]]:
    """Both measure new objects by turns, as the machine's other load would count for one of them only."""
    ours, floor = [], []
    for _repetition in range(REPETITIONS):
        for suffix in ("a", "b"):
            run([kubectl, "delete", "namespace", "--ignore-not-found", f"{name}-{suffix}"])
            run([kubectl, "create", "namespace", f"{name}-{suffix}"])
            _write(folder / suffix, f"{name}-{suffix}")
        ours.append(_seconds(lambda: _play(folder / "a")))
        floor.append(_seconds(lambda: run([kubectl, "apply", "--server-side", "-f", folder / "b" / "objects.json"])))
    ours_again = min(_seconds(lambda: _play(folder / "a", unchanged=True)) for _repetition in range(REPETITIONS))
    diff = [kubectl, "diff", "-f", folder / "b" / "objects.json"]
    floor_again = min(_seconds(lambda: _diff(diff)) for _repetition in range(REPETITIONS))
    first = (min(ours), "kubectl apply --server-side", min(floor))
    return first, (ours_again, "kubectl diff", floor_again)


def _seconds(function: Callable[[], object]) -> float:
    start = time.monotonic()
    function()
    return time.monotonic() - start


def _diff(command: list[object]) -> None:
    if subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode > 1:
        raise SystemExit("kubectl diff failed")


def _play(folder: Path, unchanged: bool = False) -> None:
    recap = run([BIN / "ansible-playbook", "--inventory", "localhost,", folder / "play.json"])
    if unchanged and "changed=0" not in recap:
        raise SystemExit(f"The second run changed something:\n{recap}")


def _write(folder: Path, namespace: str) -> None:
    folder.mkdir(exist_ok=True)
    objects = [obj for number in range(WORKLOADS) for obj in _workload(f"service-{number}", namespace)]
    (folder / "objects.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    task = {"sidecar.mesh.apply": {"definition": "{{ [lookup('ansible.builtin.file', 'objects.json') | from_json] }}"}}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    play["vars"] = {"ansible_python_interpreter": sys.executable}
    (folder / "play.json").write_text(json.dumps([play]))


def _workload(name: str, namespace: str) -> list[Object]:
    """What the mesh makes of a service, without pods: they would take the machine's time."""
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name}}
    config = (ROOT / "tests" / "golden" / "s3-mesh" / "inventory.yml").read_text() * 4
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"lds.yaml": config}}
    ports = [{"name": "http", "port": 8080}]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata}
    service["spec"] = {"clusterIP": "None", "selector": {"app": name}, "ports": ports}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata}
    budget["spec"] = {"maxUnavailable": 1, "selector": {"matchLabels": {"app": name}}}
    containers = [{"name": side, "image": f"{side}:1", "ports": [{"containerPort": 8080}]} for side in ("app", "envoy")]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"serviceAccountName": name, "containers": containers}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
    return [account, config_map, service, budget, deployment]
