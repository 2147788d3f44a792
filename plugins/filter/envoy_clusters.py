# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter envoy_clusters; its documentation is envoy_clusters.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import callers_view, select
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def envoy_clusters(model: Any, proxy: str | None = None) -> list[dict[str, Any]]:
    """Envoy clusters of one proxy, or of every service as a caller has them."""
    return clusters(callers_view(model) if proxy is None else select(model, proxy))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"envoy_clusters": translated(envoy_clusters)}
