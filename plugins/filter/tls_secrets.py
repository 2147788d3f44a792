# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter tls_secrets; its documentation is tls_secrets.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.certificates import tls_secrets as manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain


def tls_secrets(contents: dict[str, str], names: list[str], labels: dict[str, str]) -> list[dict[str, Any]]:
    """The Secrets of certificates."""
    return manifests(plain(contents), plain(names), plain(labels))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"tls_secrets": tls_secrets}
