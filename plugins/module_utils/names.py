# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every name that appears in more than one place: made here, nowhere else."""

from __future__ import annotations

# An underscore keeps them apart from services, whose names are DNS labels.
APPLICATION_CLUSTER = "local_app"
ADMIN_CLUSTER = "envoy_admin"
COLLECTOR_CLUSTER = "otel_collector"
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


def is_egress(listener_name: str) -> bool:
    """Whether it is the application beside a proxy that uses a listener."""
    return listener_name.startswith("egress_")


def routes_file(listener_name: str) -> str:
    return f"rds.{listener_name}.yaml"


def endpoints_file(cluster: str) -> str:
    return f"eds.{cluster}.yaml"


def secret_file(secret: str) -> str:
    return f"sds.{secret}.yaml"


def upstream_variable(service: str) -> str:
    """Environment variable that tells an application where its sidecar listens for one upstream."""
    return f"UPSTREAM_{service.upper().replace('-', '_')}"
