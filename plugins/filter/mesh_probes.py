# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter mesh_probes; its documentation is mesh_probes.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.checks import probes
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def mesh_probes(model: Any, checks: list[dict[str, Any]], paths: dict[str, str]) -> list[dict[str, Any]]:
    """The checks of an inventory as probes."""
    return probes(as_model(model), checks, paths)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mesh_probes": translated(mesh_probes)}
