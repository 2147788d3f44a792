# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a model makes, as files of one folder for people and tools to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml, names
from ansible_collections.sidecar.mesh.plugins.module_utils.files import Files, mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import image, mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_control_plane import control_plane_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import Model
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from ansible_collections.sidecar.mesh.plugins.module_utils.services import runs_here

PROXIES, MANIFESTS = "proxies", "manifests"
KUSTOMIZATION = "kustomization.yaml"


def rendered(model: Model) -> Files:
    """``{path: text}``: ``proxies/<proxy>/<file>``, each proxy's folder as its Envoy reads it, and for Kubernetes
    ``manifests/<workload>/<kind>.yaml``, which ``kubectl apply -k manifests`` takes. A list of services without images,
    whose Envoys are all that is asked for, has no manifests.
    """
    made = mesh_files(model)
    files = {f"{PROXIES}/{proxy['name']}/{name}": text for proxy in made for name, text in proxy["files"].items()}
    mesh = model["mesh"]
    here = [service for service in model["services"] if runs_here(service)]
    named = all(image(service, mesh) or service["build"] for service in here)
    if mesh["engine"] != "kubernetes" or not named:
        return files
    manifests = _manifests(model, {proxy["workload"]: proxy["files"] for proxy in made})
    return {**files, **{f"{MANIFESTS}/{path}": text for path, text in manifests.items()}}


def _manifests(model: Model, proxies: dict[str, Files]) -> Files:
    """``{path: text}`` of a model's objects and policies, with a kustomization for each folder and one for all."""
    folders: dict[str, list[dict[str, Any]]] = {
        item["workload"]: item["objects"] for item in mesh_manifests(model, proxies)
    }
    if model["mesh"]["config_delivery"] == "ads":
        sender = names.control_plane(model["mesh"]["name"])
        # What it is believed by is made where it runs.
        folders[sender] = [item for item in control_plane_manifests(model, "") if item["kind"] != "ConfigMap"]
    for workload, policy in mesh_policies(model).items():
        folders[workload].append(policy)
    files = {f"{folder}/{name}": text for folder, objects in folders.items() for name, text in _folder(objects)}
    return {**files, KUSTOMIZATION: _kustomization(list(folders))} if files else {}


def _folder(objects: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    found = [f"{item['kind'].lower()}.yaml" for item in objects]
    yield from zip(found, map(envoy_yaml.dump, objects), strict=True)
    yield KUSTOMIZATION, _kustomization(found)


def _kustomization(resources: list[str]) -> str:
    """Source: Kubernetes docs, "Declarative Management of Kubernetes Objects Using Kustomize"."""
    return envoy_yaml.dump(
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    )
