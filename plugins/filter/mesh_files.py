# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter mesh_files; its documentation is mesh_files.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files as build_files
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def mesh_files(model: Any) -> list[dict[str, Any]]:
    """The config folder of every proxy."""
    return build_files(as_model(model))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mesh_files": translated(mesh_files)}
