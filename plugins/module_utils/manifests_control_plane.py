# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes' objects of a mesh's control plane. It may read what it sends and where replicas are, and ask the API
server whose a token is; it writes nothing.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.control_plane import STATUS_PORT
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_pod import RESTRICTED
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError
from ansible_collections.sidecar.mesh.plugins.module_utils.values import present

Item = dict[str, Any]

_USER = 10001
"""Of its image."""
_CERTIFICATE_FOLDER = "/etc/control-plane"
_RIGHTS = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
_REVIEWER = "system:auth-delegator"
"""The role that may ask whose a token is. Source: Kubernetes docs, "Using RBAC Authorization", core component roles."""


def control_plane_manifests(model: Item, authority: str) -> list[Item]:
    """The objects in their order. ``authority``: the certificate, in PEM, that proxies believe the control plane by.

    Its Secret, named like it, is not among them. Raises ModelError without an image, SelectionError for a mesh that has
    no control plane on Kubernetes.
    """
    mesh = model["mesh"]
    if (mesh["engine"], mesh["config_delivery"]) != ("kubernetes", "ads"):
        raise SelectionError("mesh_config_delivery: only ads on engine kubernetes has pods of a control plane")
    image = mesh["control_plane"]["image"] or mesh["images"].get(names.CONTROL_PLANE)
    if not image:
        raise ModelError(["mesh_control_plane.image: is missing; give one, or have role images build it"])
    name, namespace = names.control_plane(mesh["name"]), mesh["namespace"]
    account = {"kind": "ServiceAccount", "name": name, "namespace": namespace}

    def made(api: str, kind: str, body: Item, own_name: str = name) -> Item:
        metadata = {"name": own_name, "labels": names.labels(mesh["name"], name, names.CONTROL_PLANE)}
        where = {} if kind.startswith("Cluster") else {"namespace": namespace}
        return {"apiVersion": api, "kind": kind, "metadata": {**metadata, **where}, **body}

    def bound(kind: str, role: str) -> Item:
        return {"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": [account]}

    rbac, settings, selector = "rbac.authorization.k8s.io/v1", mesh["control_plane"], names.selector(name)
    reviewer = made(rbac, "ClusterRoleBinding", bound("ClusterRole", _REVIEWER), f"{namespace}-{name}")
    ports = [_service_port("grpc-xds", settings["port"]), _service_port(STATUS_PORT, settings["status_port"])]
    return [
        made("v1", "ServiceAccount", {"automountServiceAccountToken": False}),
        made(rbac, "Role", {"rules": _RIGHTS}),
        made(rbac, "RoleBinding", bound("Role", name)),
        *([reviewer] if settings["cluster_role_binding"] else []),
        made("v1", "ConfigMap", {"data": {"ca.crt": authority}}, names.control_plane_authority(mesh["name"])),
        made("v1", "Service", {"spec": {"selector": selector, "clusterIP": "None", "ports": ports}}),
        *_budget(made, settings["replicas"], selector),
        made("apps/v1", "Deployment", {"spec": _deployment(mesh, image, selector)}),
    ]


def _budget(made: Any, replicas: int, selector: Item) -> list[Item]:
    if replicas < 2:
        return []
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector}}
    return [made("policy/v1", "PodDisruptionBudget", {"spec": spec})]


def _service_port(name: str, port: int) -> Item:
    return {"name": name, "port": port, "targetPort": port, "protocol": "TCP"}


def _deployment(mesh: Item, image: str, selector: Item) -> Item:
    name = names.control_plane(mesh["name"])
    return {
        "replicas": mesh["control_plane"]["replicas"],
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "template": {
            "metadata": {"labels": {**names.labels(mesh["name"], name, names.CONTROL_PLANE), **selector}},
            "spec": present(
                {
                    "serviceAccountName": name,
                    "automountServiceAccountToken": True,
                    "enableServiceLinks": False,
                    "imagePullSecrets": [{"name": secret} for secret in mesh["image_pull_secrets"]],
                    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                    "topologySpreadConstraints": [
                        {
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": selector},
                            "matchLabelKeys": ["pod-template-hash"],
                        }
                    ],
                    "containers": [_container(mesh, image)],
                    "terminationGracePeriodSeconds": 10,
                    "volumes": [{"name": "certificate", "secret": {"secretName": name}}],
                }
            ),
        },
    }


def _container(mesh: Item, image: str) -> Item:
    settings, name = mesh["control_plane"], names.control_plane(mesh["name"])
    port, status = settings["port"], settings["status_port"]
    patience = {"timeoutSeconds": 5}
    return {
        "name": names.CONTROL_PLANE,
        "image": image,
        "args": [
            *("--listen", f"0.0.0.0:{port}", "--status", f"0.0.0.0:{status}"),
            *("--tls-certificate", f"{_CERTIFICATE_FOLDER}/tls.crt", "--tls-key", f"{_CERTIFICATE_FOLDER}/tls.key"),
            *("--namespace", mesh["namespace"], "--mesh", mesh["name"]),
            *("--suffix", f"{mesh['namespace']}.svc.{mesh['domain']}"),
            *("--audience", name),
        ],
        "ports": [{"name": "grpc-xds", "containerPort": port}, {"name": STATUS_PORT, "containerPort": status}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": STATUS_PORT}, "periodSeconds": 2, **patience},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": STATUS_PORT}, "periodSeconds": 10, **patience},
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {**RESTRICTED, "readOnlyRootFilesystem": True, "runAsUser": _USER, "runAsGroup": _USER},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "certificate", "mountPath": _CERTIFICATE_FOLDER, "readOnly": True}],
    }
