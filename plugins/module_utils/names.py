# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every name that appears in more than one place: made here, nowhere else."""

from __future__ import annotations

# An underscore keeps them apart from services, whose names are DNS labels.
APPLICATION_CLUSTER = "local_app"
ADMIN_CLUSTER = "envoy_admin"
COLLECTOR_CLUSTER = "otel_collector"
CONTROL_PLANE_CLUSTER = "control_plane"
TOKEN_HEADER = "x-mesh-token"  # noqa: S105
"""In which a proxy shows its token, without the word that an authorization header would have before it."""
CONTROL_PLANE_TOKEN = "control_plane_token"  # noqa: S105 - the name of a secret
# Those that a proxy does not share with others of its workload, and does not choose.
OWN_CLUSTERS = (APPLICATION_CLUSTER, ADMIN_CLUSTER)


def dns_name(service: str, namespace: str, domain: str) -> str:
    """Name of a headless Service. Source: Kubernetes docs, "DNS for Services and Pods"."""
    return f"{service}.{namespace}.svc.{domain}"


def hosts(service: str, namespace: str, domain: str) -> list[str]:
    """The names under which an application may address a service, shortest first."""
    return [service, f"{service}.{namespace}", f"{service}.{namespace}.svc", dns_name(service, namespace, domain)]


def instance(workload: str, index: int) -> str:
    """Name of one replica on the local engine; ``index`` counts from 1."""
    return f"{workload}-{index}"


def listener(direction: str, port: int) -> str:
    """A listener's name holds its port, so that a port change is one listener added and one removed."""
    return f"{direction}_{port}"


HEALTH_FILTER = "envoy.filters.http.health_check"


def is_egress(listener_name: str) -> bool:
    """Whether it is the application beside a proxy that uses a listener."""
    return listener_name.startswith("egress_")


def routes_file(listener_name: str) -> str:
    return f"rds.{listener_name}.yaml"


def endpoints_file(cluster: str) -> str:
    return f"eds.{cluster}.yaml"


def secret_file(secret: str) -> str:
    return f"sds.{secret}.yaml"


def is_secret_file(name: str) -> bool:
    return name.startswith("sds.")


def upstream_variable(service: str) -> str:
    """Environment variable that tells an application where its sidecar listens for one upstream."""
    return f"UPSTREAM_{service.upper().replace('-', '_')}"


# Kubernetes

APPLICATION_CONTAINER = "application"
ENVOY_CONTAINER = "envoy"
CONTAINERS = (APPLICATION_CONTAINER, ENVOY_CONTAINER)
OWN_VOLUMES = "mesh-"
"""How names of volumes begin that are not the user's."""
SIDECAR, FRONT_PROXY, NETWORK_POLICY, CERTIFICATE = "sidecar", "front-proxy", "network-policy", "certificate"
CONTROL_PLANE = "control-plane"
"""Values of the label app.kubernetes.io/component."""
MANAGER = "sidecar.mesh"
HASH_LENGTH = 8
_RECOMMENDED = "app.kubernetes.io/"
WORKLOAD_LABEL, MESH_LABEL, COMPONENT_LABEL = (f"{_RECOMMENDED}{name}" for name in ("name", "part-of", "component"))


def selector(workload: str) -> dict[str, str]:
    """What all pods of a workload have, and nothing else has. A Deployment's selector cannot be changed."""
    return {"app": workload}


def labels(mesh: str, workload: str, component: str) -> dict[str, str]:
    """Labels of every object. Source: Kubernetes docs, "Recommended Labels"."""
    return {
        WORKLOAD_LABEL: workload,
        MESH_LABEL: mesh,
        f"{_RECOMMENDED}managed-by": MANAGER,
        COMPONENT_LABEL: component,
    }


def is_own_label(key: str) -> bool:
    return key == "app" or key.startswith(_RECOMMENDED)


def control_plane(mesh: str) -> str:
    """Its Deployment, Service and ServiceAccount, and its program on the local engine."""
    return f"{mesh}-{CONTROL_PLANE}"


def control_plane_authority(mesh: str) -> str:
    """The ConfigMap of the authority that proxies believe the control plane by."""
    return f"{control_plane(mesh)}-ca"


def port_name(kind: str, port: int) -> str:
    """Of a Service or container, where 15 characters are the most. Source: RFC 6335, service names."""
    return f"{kind}-{port}"


def config_map(workload: str, content: str) -> str:
    """``content``: hash of what a pod is started with."""
    return f"{workload}-envoy-{content[:HASH_LENGTH]}"


def network_policy(workload: str, content: str) -> str:
    """``content``: hash of the policy, so that a new one is there before the old one goes."""
    return f"{workload}-{content[:HASH_LENGTH]}"
