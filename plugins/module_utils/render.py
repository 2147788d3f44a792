# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that a model makes, as files of one folder for people and tools to read."""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import Model

PROXIES = "proxies"


def rendered(model: Model) -> dict[str, str]:
    """``{path: text}``: ``proxies/<proxy>/<file>``, each proxy's folder as its Envoy reads it."""
    return {
        f"{PROXIES}/{proxy['name']}/{name}": text
        for proxy in mesh_files(model)
        for name, text in proxy["files"].items()
    }
