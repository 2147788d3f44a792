# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter k3s_plan; its documentation is k3s_plan.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_plan import build_plan


def k3s_plan(nodes: dict[str, Any], servers: list[str], wanted: dict[str, Any]) -> dict[str, Any]:
    """What every node of an inventory becomes."""
    return build_plan(nodes, servers, wanted)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"k3s_plan": k3s_plan}
