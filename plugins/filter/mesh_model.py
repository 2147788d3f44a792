# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter mesh_model; its documentation is mesh_model.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def mesh_model(services: Any, front_proxies: Any = None, **settings: Any) -> dict[str, Any]:
    """The checked and completed model of an inventory."""
    return build_model(services, front_proxies, settings)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mesh_model": translated(mesh_model)}
