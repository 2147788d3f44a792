# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter cilium_problems; its documentation is cilium_problems.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_cluster import chart_problems, cluster_problems
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def cilium_problems(settings: dict[str, Any], nodes: Any = None, release: Any = None, chart: Any = None) -> list[str]:
    """What does not fit a cluster, or the chart."""
    checked = check_settings(settings)
    found = [*cluster_problems(checked, plain(nodes or []), plain(release or {}))]
    return [*found, *chart_problems(checked, plain(chart or {}))]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cilium_problems": translated(cilium_problems)}
