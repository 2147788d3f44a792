# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's typed configurations by their names, so that each type URL is written once."""

from __future__ import annotations

from typing import Any

Config = dict[str, Any]

HTTP2: Config = {
    "initial_stream_window_size": 65536,
    "initial_connection_window_size": 1048576,
    "connection_keepalive": {"interval": "30s", "timeout": "5s"},
}
"""How much one side of HTTP/2 sends before the other takes it, and how soon a dead connection is noticed.

Source: Envoy docs, "Configuring Envoy as an edge proxy" and "HTTP/2 protocol options"."""


def typed(kind: str, **fields: Any) -> Config:
    """A message that names its own type; ``kind`` is its protobuf name."""
    return {"@type": f"type.googleapis.com/{kind}", **fields}


def extension(name: str, kind: str, **fields: Any) -> Config:
    """An extension by name with its typed configuration. Source: Envoy docs, "Extension configuration"."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def socket_address(address: str, port: int) -> Config:
    return {"socket_address": {"address": address, "port_value": port}}


def watched_file(folder: str, file: str) -> Config:
    """Config source of a file that is read again whenever its folder sees a rename.

    Kubernetes swaps a link in the folder of a ConfigMap, which a watch on the file alone never sees.
    Source: Envoy docs, "PathConfigSource".
    """
    return {
        "path_config_source": {"path": f"{folder}/{file}", "watched_directory": {"path": folder}},
        "resource_api_version": "V3",
    }


def aggregated() -> Config:
    """Config source of what a control plane sends over the one stream it has with a proxy.

    Source: Envoy docs, "xDS REST and gRPC protocol", aggregated discovery service.
    """
    return {"ads": {}, "resource_api_version": "V3"}
