# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an Envoy says on its metrics listener, under the names that its statistics have on the admin interface.

Pods have their admin interface on loopback, where nobody else reaches it.
Source: Envoy docs, "Administration interface", /stats/prometheus.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import BOOTSTRAP_FILE, LISTENERS_FILE

Stats = dict[str, str]

_PAGE = "/stats/prometheus?text_readouts&filter="
_CONFIG = (
    r"(^|\.)(version_text|update_rejected|warming_clusters|total_listeners_warming|days_until_first_cert_expiring)$"
)
_SAMPLE = re.compile(r"^envoy_(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_LISTENER = re.compile(r"^ +name: metrics_(\d+)$", re.MULTILINE)

# What tags take out of a name is put back: prefix in Prometheus, the label with the rest of the name, prefix in Envoy.
_NAMES = (
    ("cluster_manager_cds_", None, "cluster_manager.cds."),
    ("cluster_manager_", None, "cluster_manager."),
    ("listener_manager_lds_", None, "listener_manager.lds."),
    ("listener_manager_", None, "listener_manager."),
    ("http_rds_", "envoy_rds_route_config", "rds."),
    ("sds_", "envoy_xds_resource_name", "sds."),
    ("cluster_", "envoy_cluster_name", "cluster."),
    ("server_", None, "server."),
)


def config_page() -> str:
    """Path of what tells which configuration runs, was refused, or is on its way."""
    return _PAGE + quote(_CONFIG)


def healthy_page(cluster: str) -> str:
    """Path of the number of a cluster's healthy members."""
    return _PAGE + quote(rf"^cluster\.{re.escape(cluster)}\.membership_healthy$")


def stats(text: str) -> Stats:
    """``{statistic: value}`` of an answer; those that no name is known for are left out."""
    found = (_stat(*sample) for sample in _SAMPLE.findall(text))
    return {name: value for name, value in found if name}


def ports(*folders: dict[str, str]) -> list[int]:
    """Ports of the metrics listeners that a proxy has in all of these config folders, before those of some."""
    texts = [files.get(LISTENERS_FILE) or files.get(BOOTSTRAP_FILE, "") for files in folders]
    every = [[int(port) for port in _LISTENER.findall(text)] for text in texts]
    known = dict.fromkeys(port for found in every for port in found)
    return sorted(known, key=lambda port: -sum(port in found for found in every))


def _stat(name: str, labels: str, value: str) -> tuple[str, str]:
    tags = dict(_LABEL.findall(labels))
    text = tags.get("text_value", value)
    for prefix, label, ours in _NAMES:
        if name.startswith(prefix) and (label is None or label in tags):
            rest = name.removeprefix(prefix)
            return f"{ours}{rest}" if label is None else f"{ours}{tags[label]}.{rest}", text
    return "", text
