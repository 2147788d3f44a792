# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter secret_problems; its documentation is secret_problems.yml."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.certificates import secret_problems as problems
from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain


def secret_problems(
    secrets: dict[str, Any],
    namespace: str,
    certificates: dict[str, Any],
    keys: dict[str, Any],
    wanted: dict[str, list[str]],
) -> list[str]:
    """What keeps Secrets from being served."""
    return list(problems(plain(secrets), namespace, plain(certificates), plain(keys), plain(wanted)))


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"secret_problems": secret_problems}
