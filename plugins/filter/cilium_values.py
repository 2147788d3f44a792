# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter cilium_values; its documentation is cilium_values.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import chart_values
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def cilium_values(settings: dict[str, Any], installed: Any = None) -> dict[str, Any]:
    """What Cilium's chart is given."""
    return chart_values(check_settings(settings), str(installed) if installed else None)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cilium_values": translated(cilium_values)}
