"""What a change of one of many services changes, and what it takes, on the tests' cluster or that of KUBECONFIG.

Services without replicas: what Kubernetes makes of them would take the machine's time.
"""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kubernetes import client

from bench.apply import kubectl_and_cluster
from bench.measuring import BIN, ROOT, Row, run

SERVICES = 200

Object = dict[str, Any]


def rows() -> list[Row]:
    kubectl, kubeconfig = kubectl_and_cluster()
    namespace = f"rollout-{secrets.token_hex(4)}"
    with TemporaryDirectory(prefix="sidecar-mesh-bench-") as temporary:
        folder = Path(temporary)
        services = [_service(number) for number in range(SERVICES)]
        try:
            _play("mesh", folder, namespace, kubeconfig, services)
            before = _generations(kubeconfig, namespace)
            services[7]["environment"] = {"GREETING": "changed"}
            begun = time.monotonic()
            _play("mesh", folder, namespace, kubeconfig, services)
            seconds = time.monotonic() - begun
            after = _generations(kubeconfig, namespace)
            _play("render", folder, namespace, kubeconfig, services)
            begun = time.monotonic()
            # Images and policies' kinds of the rendered objects are the same; so it changes nothing.
            options = ["--server-side", "--force-conflicts", "--field-manager", "sidecar.mesh"]
            run([kubectl, "apply", *options, "-k", folder / "rendered" / "manifests"])
            floor = time.monotonic() - begun
        finally:
            run([kubectl, "delete", "namespace", "--wait=false", "--ignore-not-found", namespace])
    rolled = sum(after[name] != before[name] for name in after)
    return [
        Row(f"Deployments changed with the environment of one of {SERVICES}", rolled, "its own", 1, 1, "Deployments"),
        Row("mesh.yml for that change", seconds, "kubectl apply --server-side -k of all objects, unchanged", floor),
    ]


def _service(number: int) -> Object:
    called = {"service": f"service-{(number + 1) % SERVICES}", "port": 9001}
    return {"name": f"service-{number}", "image": "none:1", "port": 8081, "replicas": 0, "upstreams": [called]}


def _play(book: str, folder: Path, namespace: str, kubeconfig: str, services: list[Object]) -> None:
    inventory = folder / "inventory.json"
    host = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    mesh = {
        "mesh_kubeconfig": kubeconfig,
        "mesh_name": "rollout",
        "mesh_namespace": namespace,
        "mesh_services": services,
        "render_path": str(folder / "rendered"),
    }
    inventory.write_text(json.dumps({"all": {"hosts": {"localhost": host}, "vars": mesh}}))
    state = {"XDG_STATE_HOME": str(folder)}
    run([BIN / "ansible-playbook", "--inventory", inventory, ROOT / "playbooks" / f"{book}.yml"], environment=state)


def _generations(kubeconfig: str, namespace: str) -> dict[str, int]:
    from cluster import api

    with api.connected(Path(kubeconfig)) as connection:
        found = client.AppsV1Api(connection).list_namespaced_deployment(namespace).items
    return {each.metadata.name: each.metadata.generation for each in found}
