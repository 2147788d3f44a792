# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A proxy's config folder: every file with its text. Pure; who writes the files is not known here."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml, names
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import (
    BOOTSTRAP_FILE,
    CLUSTERS_FILE,
    FALLBACK_FILE,
    LISTENERS_FILE,
    bootstrap,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters, endpoints
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, typed
from ansible_collections.sidecar.mesh.plugins.module_utils.listeners import listeners, secrets
from ansible_collections.sidecar.mesh.plugins.module_utils.routes import route_configurations

CLUSTER = "envoy.config.cluster.v3.Cluster"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTES = "envoy.config.route.v3.RouteConfiguration"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
CERTIFICATE = "envoy.extensions.transport_sockets.tls.v3.Secret"


Files = dict[str, str]
"""Text by file name."""


def proxy_files(proxy: dict[str, Any]) -> Files:
    """``{file name: text}`` of one proxy's config folder, names without a path."""
    start = {
        BOOTSTRAP_FILE: envoy_yaml.dump(bootstrap(proxy)),
        **{names.secret_file(name): discovery_file(CERTIFICATE, [item]) for name, item in secrets(proxy).items()},
    }
    if proxy["delivery"] == "static":
        return start
    by_files = {**proxy, "delivery": "files"}
    fallback = {FALLBACK_FILE: envoy_yaml.dump(bootstrap(by_files))} if proxy["delivery"] == "ads" else {}
    return {**start, **fallback, **_dynamic_files(by_files)}


def _dynamic_files(proxy: dict[str, Any]) -> dict[str, str]:
    return {
        CLUSTERS_FILE: discovery_file(CLUSTER, clusters(proxy)),
        LISTENERS_FILE: discovery_file(LISTENER, listeners(proxy)),
        **{names.routes_file(item["name"]): discovery_file(ROUTES, [item]) for item in route_configurations(proxy)},
        **{names.endpoints_file(name): discovery_file(ENDPOINTS, [item]) for name, item in endpoints(proxy).items()},
    }


def discovery_file(kind: str, resources: list[Config]) -> str:
    """A discovery response with its content's hash as version. Source: Envoy docs, "DiscoveryResponse"."""
    return response([typed(kind, **resource) for resource in resources])


def response(resources: list[Config]) -> str:
    """The text of a discovery response of resources that name their type."""
    text = envoy_yaml.dump({"resources": resources})
    return text + envoy_yaml.dump({"version_info": envoy_yaml.text_hash(text)})


def mesh_files(model: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry a proxy: ``name``, ``workload``, ``kind``, ``folder``, ``admin`` (address:port) and ``files``."""
    return [
        {
            "name": proxy["name"],
            "workload": proxy["workload"],
            "kind": proxy["kind"],
            "folder": proxy["paths"]["config"],
            "admin": f"{proxy['addresses']['admin']}:{proxy['envoy']['admin_port']}",
            "files": proxy_files(proxy),
        }
        for proxy in model["proxies"]
    ]
