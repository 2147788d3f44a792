# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the errors of the model and the builders into what Ansible shows to a user."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from ansible.errors import AnsibleFilterError
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_settings import SettingsError
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError

Result = TypeVar("Result")


def translated(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function, with the model's errors raised as AnsibleFilterError."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Result:
        try:
            return function(*args, **kwargs)
        except (ModelError, SelectionError, SettingsError) as exc:
            raise AnsibleFilterError(str(exc)) from exc

    return call
