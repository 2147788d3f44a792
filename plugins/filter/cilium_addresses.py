# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter cilium_addresses; its documentation is cilium_addresses.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_objects import address_objects
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import check_settings
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def cilium_addresses(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Pools of addresses for load balancers, and who announces them."""
    return address_objects(check_settings(settings))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cilium_addresses": translated(cilium_addresses)}
