# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter local_plan; its documentation is local_plan.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.local_plan import local_plan as build_plan
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def local_plan(model: Any, paths: dict[str, str]) -> dict[str, Any]:
    """What the local engine runs for a model."""
    return build_plan(as_model(model), paths)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"local_plan": translated(local_plan)}
