# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pods: an application with its sidecar, or a front proxy. They meet the restricted Pod Security Standard.

Source: Kubernetes docs, "Pod Security Standards" and "Sidecar Containers"; why it is so: docs/pods.md.
"""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import command
from ansible_collections.sidecar.mesh.plugins.module_utils.edges import CONTROL_PLANE_FOLDER
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.local import LOCALHOST, PRIVILEGED
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_drain import (
    GRACE_SECONDS,
    drain_seconds,
    fail_and_wait,
    sleep,
    wait_seconds,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_probes import application_probes, envoy_probes
from ansible_collections.sidecar.mesh.plugins.module_utils.proxies import EVERY_ADDRESS
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present, seconds

Item = dict[str, Any]

ENVOY_USER = 101
"""Of the official image."""
CONFIG_VOLUME = f"{names.OWN_VOLUMES}config"
_IDENTITY_VOLUME = f"{names.OWN_VOLUMES}identity"
_TOKEN_SECONDS = 3600
_TMP_VOLUME = f"{names.OWN_VOLUMES}tmp"
_TMP = "/tmp"  # noqa: S108 - the container's own
_LONGEST_NAME = 63

# What the restricted Pod Security Standard asks of every container.
RESTRICTED: Item = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
_POD_NAME: Item = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}


def service_pod(service: Item, proxy: Item | None, image: str, config_map: str, mesh: Item) -> Item:
    """The spec of a service's pods. ``proxy``: its sidecar, if it has one."""
    wait = wait_seconds(mesh)
    stop = math.ceil(seconds(service["pod"]["stop_timeout"]))
    application, tmp = _application(service, image, wait)
    patches = service["kubernetes_patch"] or {}
    sidecars: list[Item] = []
    if proxy:
        # Restarted by itself and stopped after the application, which starts when this is ready.
        sidecars = [merge_patch({**_envoy(proxy, mesh, wait), "restartPolicy": "Always"}, patches.get("envoy") or {})]
    prepared = [
        {**item, "securityContext": merge_patch(RESTRICTED, item.get("securityContext") or {})}
        for item in service["pod"]["init_containers"]
    ]
    return present(
        {
            **_common(service, proxy, config_map, mesh, [*tmp]),
            **_sysctls([service["port"], *_ports(proxy)]),
            "initContainers": [*sidecars, *prepared],
            "containers": [merge_patch(application, patches.get("container") or {})],
            "terminationGracePeriodSeconds": wait
            + max(stop, drain_seconds(proxy["envoy"]) if proxy else 0)
            + GRACE_SECONDS,
        }
    )


def front_pod(front: Item, proxy: Item, config_map: str, mesh: Item) -> Item:
    """The spec of a front proxy's pods."""
    # Nobody else keeps it alive while requests are on their way.
    wait = wait_seconds(mesh) + drain_seconds(proxy["envoy"])
    envoy = merge_patch(
        _envoy(proxy, mesh, wait, on_host=front["expose"]["host_ports"]),
        (front["kubernetes_patch"] or {}).get("envoy") or {},
    )
    return present(
        {
            **_common(front, proxy, config_map, mesh, []),
            **_sysctls(_ports(proxy)),
            "containers": [envoy],
            "terminationGracePeriodSeconds": wait + GRACE_SECONDS,
        }
    )


def pod_labels(workload: Item, component: str, mesh: Item) -> Item:
    name = workload["name"]
    return {**workload["pod"]["labels"], **names.labels(mesh["name"], name, component), **names.selector(name)}


def envoy_image(proxy: Item, mesh: Item) -> str:
    found: str = proxy["envoy"]["image"] or mesh["envoy_image"]
    return found


def _common(workload: Item, proxy: Item | None, config_map: str, mesh: Item, volumes: list[Item]) -> Item:
    """What a pod of any kind has."""
    pod = workload["pod"]
    pull_secrets = dict.fromkeys([*mesh["image_pull_secrets"], *pod["image_pull_secrets"]])
    spread = _spread(workload) if pod["topology_spread"] is None else pod["topology_spread"]
    ours = _envoy_volumes(proxy, config_map, mesh) if proxy else []
    return {
        "serviceAccountName": pod["service_account"] or workload["name"],
        "automountServiceAccountToken": pod["mount_token"],
        # A variable for every Service of the namespace tells nobody anything here.
        "enableServiceLinks": False,
        "imagePullSecrets": [{"name": name} for name in pull_secrets],
        "nodeSelector": pod["node_selector"],
        "tolerations": pod["tolerations"],
        "affinity": pod["affinity"],
        "priorityClassName": pod["priority_class"],
        "topologySpreadConstraints": spread,
        "volumes": [*ours, *volumes, *pod["volumes"]],
    }


def _spread(workload: Item) -> list[Item]:
    """Over nodes, those that an update replaces not counted. For one replica too: who scales must not roll pods."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.selector(workload["name"])},
            "matchLabelKeys": ["pod-template-hash"],
        }
    ]


def _sysctls(ports: list[int]) -> Item:
    """Who is not root may open ports below 1024 where this sysctl, a safe one, says so."""
    security: Item = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if any(port < PRIVILEGED for port in ports):
        security["sysctls"] = [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    return {"securityContext": security}


def _ports(proxy: Item | None) -> list[int]:
    if proxy is None:
        return []
    return [proxy["envoy"]["admin_port"], *(listener["port"] for listener in proxy["listeners"])]


# Envoy


def _envoy(proxy: Item, mesh: Item, wait: int, *, on_host: bool = False) -> Item:
    envoy, image = proxy["envoy"], envoy_image(proxy, mesh)
    program, *args = command(proxy, "$(POD_NAME)")
    return present(
        {
            "name": names.ENVOY_CONTAINER,
            "image": image,
            # Not the image's own command, a script that takes root for granted.
            "command": [program],
            "args": args,
            "env": [_POD_NAME],
            "ports": _container_ports(proxy, on_host=on_host),
            "resources": envoy["resources"],
            "securityContext": {
                **RESTRICTED,
                "readOnlyRootFilesystem": True,
                "runAsUser": ENVOY_USER,
                "runAsGroup": ENVOY_USER,
            },
            "lifecycle": fail_and_wait(image, envoy["admin_port"], wait),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [*_envoy_mounts(proxy), *envoy["volume_mounts"]],
            **envoy_probes(proxy, image, wait + drain_seconds(envoy)),
        }
    )


def _container_ports(proxy: Item, *, on_host: bool) -> list[Item]:
    """The listeners that others reach."""
    found = []
    for listener in proxy["listeners"]:
        if listener["direction"] != "egress":
            metrics = listener["direction"] == "metrics"
            host = {"hostPort": listener["port"]} if on_host and not metrics else {}
            name = "metrics" if metrics else names.port_name(listener["direction"], listener["port"])
            found.append({"name": name, "containerPort": listener["port"], **host})
    return found


def _secret_volume(secret: str) -> str:
    name = f"{names.OWN_VOLUMES}tls-{secret}"
    return name if len(name) <= _LONGEST_NAME else f"{names.OWN_VOLUMES}tls-{content_hash(secret)}"


def _envoy_volumes(proxy: Item, config_map: str, mesh: Item) -> list[Item]:
    secrets = [
        {"name": _secret_volume(name), "secret": {"secretName": name}} for name in proxy["paths"]["certificates"]
    ]
    known = [{"name": _IDENTITY_VOLUME, "projected": _identity(mesh)}] if proxy["control_plane"] else []
    return [{"name": CONFIG_VOLUME, "configMap": {"name": config_map}}, *known, *secrets]


def _identity(mesh: Item) -> Item:
    """By what a proxy and its control plane know each other. Source: Kubernetes docs, "Projected Volumes"."""
    name = names.control_plane(mesh["name"])
    token = {"audience": name, "expirationSeconds": _TOKEN_SECONDS, "path": "token"}
    authority = {"name": names.control_plane_authority(mesh["name"]), "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    return {"sources": [{"serviceAccountToken": token}, {"configMap": authority}]}


def _envoy_mounts(proxy: Item) -> list[Item]:
    """Folders, never files: a file that is mounted alone stays as it was when the ConfigMap changes."""
    secrets = [
        {"name": _secret_volume(name), "mountPath": folder, "readOnly": True}
        for name, folder in proxy["paths"]["certificates"].items()
    ]
    known = [{"name": _IDENTITY_VOLUME, "mountPath": CONTROL_PLANE_FOLDER, "readOnly": True}]
    return [
        {"name": CONFIG_VOLUME, "mountPath": proxy["paths"]["config"], "readOnly": True},
        *(known if proxy["control_plane"] else []),
        *secrets,
    ]


# The application


def environment(service: Item) -> list[Item]:
    """The application's environment: what the engine tells it, then what the inventory says, which may refer to it."""
    told = {
        # The kubelet's probes come to the pod's address, not to loopback.
        "BIND_ADDRESS": EVERY_ADDRESS,
        "PORT": str(service["port"]),
        **{
            names.upstream_variable(upstream["service"]): f"{LOCALHOST}:{upstream['port'] or service['egress']['port']}"
            for upstream in service["upstreams"]
        },
    }
    given = {**{name: value for name, value in told.items() if name not in service["environment"]}}
    own = [_POD_NAME] if "POD_NAME" not in service["environment"] else []
    values = [*sorted(given.items()), *service["environment"].items()]
    return [*own, *({"name": name, "value": value} for name, value in values), *service["pod"]["env"]]


def _application(service: Item, image: str, wait: int) -> tuple[Item, list[Item]]:
    """The container, and the volume of its folder for temporary files if it needs one."""
    pod = service["pod"]
    security = merge_patch({**RESTRICTED, "readOnlyRootFilesystem": True}, pod["security_context"])
    mounted = [mount.get("mountPath") for mount in pod["volume_mounts"]]
    tmp = bool(security.get("readOnlyRootFilesystem")) and _TMP not in mounted
    container = present(
        {
            "name": names.APPLICATION_CONTAINER,
            "image": image,
            "imagePullPolicy": pod["image_pull_policy"],
            "command": pod["command"],
            "args": pod["args"],
            "workingDir": pod["working_dir"],
            "env": environment(service),
            "envFrom": pod["env_from"],
            "ports": [{"name": names.APPLICATION_CONTAINER, "containerPort": service["port"]}],
            "resources": pod["resources"],
            "securityContext": security,
            # It serves on while others still have the pod's address.
            "lifecycle": sleep(wait),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [*([{"name": _TMP_VOLUME, "mountPath": _TMP}] if tmp else []), *pod["volume_mounts"]],
            **application_probes(service),
        }
    )
    return container, [{"name": _TMP_VOLUME, "emptyDir": {}}] if tmp else []
