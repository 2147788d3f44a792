# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter envoy_clusters; its documentation is envoy_clusters.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.sidecar.mesh.plugins.module_utils.clusters import clusters
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError, callers_view, select


def envoy_clusters(model: Any, proxy: str | None = None) -> list[dict[str, Any]]:
    """See envoy_clusters.yml."""
    try:
        return clusters(callers_view(model) if proxy is None else select(model, proxy))
    except (ModelError, SelectionError) as exc:
        raise AnsibleFilterError(str(exc)) from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"envoy_clusters": envoy_clusters}
