# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy's bootstrap and command line: all a process needs before it reads its first file.

Source of the fields: Envoy docs, "Bootstrap (proto)" and "Command line options".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, socket_address, watched_file
from ansible_collections.sidecar.mesh.plugins.module_utils.listeners import listeners
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, seconds

BOOTSTRAP_FILE = "bootstrap.yaml"
CLUSTERS_FILE = "cds.yaml"
LISTENERS_FILE = "lds.yaml"


def bootstrap(proxy: dict[str, Any]) -> Config:
    """The bootstrap of a proxy: with its listeners and clusters (delivery static), or where to read them (files)."""
    base = {
        "admin": {"address": socket_address(proxy["addresses"]["admin"], proxy["envoy"]["admin_port"])},
        **_resources(proxy),
    }
    merged: Config = merge_patch(base, proxy["bootstrap_patch"])
    return merged


def _resources(proxy: dict[str, Any]) -> Config:
    if proxy["delivery"] == "static":
        return {"static_resources": {"clusters": clusters(proxy), "listeners": listeners(proxy)}}
    folder = proxy["paths"]["config"]
    return {
        "dynamic_resources": {
            "cds_config": watched_file(folder, CLUSTERS_FILE),
            "lds_config": watched_file(folder, LISTENERS_FILE),
        }
    }


def arguments(proxy: dict[str, Any], node: str) -> list[str]:
    """Envoy's arguments; ``node`` is the name of the replica.

    Unknown fields in files are refused as they are in the bootstrap: one typo would otherwise be dropped silently.
    """
    settings = proxy["envoy"]
    return [
        *("--config-path", f"{proxy['paths']['config']}/{BOOTSTRAP_FILE}"),
        *("--service-cluster", proxy["workload"]),
        *("--service-node", node),
        *("--log-level", settings["log_level"]),
        *("--log-format", settings["log_format"]),
        *("--concurrency", str(settings["concurrency"])),
        *("--drain-time-s", str(max(1, round(seconds(settings["drain_time"]))))),
        *("--file-flush-interval-msec", "1000"),
        "--disable-hot-restart",
        "--reject-unknown-dynamic-fields",
        *settings["args"],
    ]
