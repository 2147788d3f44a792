# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter mesh_certificates; its documentation is mesh_certificates.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.selection import as_model
from ansible_collections.sidecar.mesh.plugins.module_utils.served import mesh_certificates as names_of_certificates
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def mesh_certificates(model: Any, in_cluster: bool = True) -> dict[str, list[str]]:
    """The certificates that front proxies serve, with the names they are for."""
    return names_of_certificates(as_model(model), in_cluster)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"mesh_certificates": translated(mesh_certificates)}
