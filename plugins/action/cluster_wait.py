# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of the same name; shows how far things are while it waits for them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

MODULE = "sidecar.mesh.cluster_wait"


class ActionModule(ActionBase):
    """A wait is a sequence of runs of the module, each of which returns at progress."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        in_pieces = not self._task.async_val
        result.update(self._run(task_vars, {"resume": {}} if in_pieces else {}))
        shown = _show(result.get("lines", []), set()) if in_pieces else set()
        while paused := result.pop("paused", None):
            result.update(self._run(task_vars, {"resume": paused}))
            shown = _show(result.get("lines", []), shown)
        return result

    def _run(self, task_vars: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE,
            module_args={**self._task.args, **arguments},
            task_vars=task_vars,
            wrap_async=bool(self._task.async_val),
        )
        return answer


def _show(lines: list[str], shown: set[str]) -> set[str]:
    """Display what is new since the lines that were shown."""
    for line in lines:
        if line not in shown:
            display.display(line)
    return shown | set(lines)
