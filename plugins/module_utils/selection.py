# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filters share: a model from what a user gives, and one of its proxies."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.model import Model, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.proxies import every_edge
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain


class SelectionError(ValueError):
    """There is no such proxy, or it takes a name to choose one."""


def as_model(value: Any) -> Model:
    """A model as it is, and a hand-written list of services made into one. Raises ModelError."""
    if isinstance(value, dict) and "proxies" in value:
        # Ansible hands data from one filter to the next in containers of its own.
        model: Model = plain(value)
        return model
    return build_model(value)


def select(value: Any, proxy: str | None) -> dict[str, Any]:
    """The proxy of that name; without a name the only one there is. Raises ModelError and SelectionError."""
    proxies = {item["name"]: item for item in as_model(value)["proxies"]}
    known = ", ".join(sorted(proxies)) or "none"
    if proxy is None and len(proxies) != 1:
        raise SelectionError(f"proxy: is missing; give one of: {known}")
    chosen = proxies.get(str(proxy)) if proxy is not None else next(iter(proxies.values()))
    if chosen is None:
        raise SelectionError(f"proxy: {str(proxy)!r} is not in the model; give one of: {known}")
    return dict(chosen)


def callers_view(value: Any) -> dict[str, Any]:
    """A proxy that calls every service of the model, each with the service's own settings."""
    model = as_model(value)
    edges = every_edge(model["mesh"], model["services"], model["replicas"])
    return {"paths": {"config": "/etc/envoy"}, "delivery": "files", "clusters": edges}
