# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter control_plane_manifests; its documentation is control_plane_manifests.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_control_plane import (
    control_plane_manifests as build_manifests,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def control_plane_manifests(model: Any, authority: str) -> list[dict[str, Any]]:
    """Kubernetes' objects of a mesh's control plane."""
    return build_manifests(as_model(model), str(authority))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"control_plane_manifests": translated(control_plane_manifests)}
