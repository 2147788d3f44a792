# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter envoy_bootstrap; its documentation is envoy_bootstrap.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import bootstrap
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import select
from ansible_collections.sidecar.mesh.plugins.plugin_utils.filters import translated


def envoy_bootstrap(model: Any, proxy: str | None = None) -> dict[str, Any]:
    """Envoy bootstrap of one proxy."""
    return bootstrap(select(model, proxy))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"envoy_bootstrap": translated(envoy_bootstrap)}
