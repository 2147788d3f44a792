# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter cilium_values_diff; its documentation is cilium_values_diff.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_values import differences
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain


def cilium_values_diff(values: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What changes from one set of values to another."""
    return list(differences(plain(before), plain(values)))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"cilium_values_diff": cilium_values_diff}
