# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter mesh_summary; its documentation is mesh_summary.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.module_utils.summary import summary
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def mesh_summary(model: Any, probes: list[dict[str, Any]] | None = None) -> list[str]:
    """A mesh in words, a line an item."""
    return summary(as_model(model), probes)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mesh_summary": translated(mesh_summary)}
