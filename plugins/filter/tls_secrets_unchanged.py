# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter tls_secrets_unchanged; its documentation is tls_secrets_unchanged.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.certificates import unchanged
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain


def tls_secrets_unchanged(
    secrets: dict[str, Any], names: list[str], files: list[dict[str, Any]], folder: str
) -> list[str]:
    """Names of Secrets that have what is in a folder of certificates."""
    return unchanged(plain(secrets), plain(names), {file["path"]: file["checksum"] for file in plain(files)}, folder)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"tls_secrets_unchanged": tls_secrets_unchanged}
