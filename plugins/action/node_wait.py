# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of the same name; shows nodes' states while it waits for them."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

MODULE = "sidecar.mesh.node_wait"


class ActionModule(ActionBase):
    """A wait is a sequence of runs of the module, each of which returns at a change."""

    _supports_check_mode = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        shown: dict[str, str] = {}
        seen: dict[str, Any] = {}
        while True:
            answer = self._execute_module(
                module_name=MODULE, module_args={**self._task.args, "seen": seen}, task_vars=task_vars
            )
            result.update(answer)
            seen = result.pop("paused", None) or {}
            states = result.get("states", {})
            # Who is where it should be at once needs no line.
            if seen or shown:
                for name in sorted(name for name in states if states[name] != shown.get(name)):
                    display.display(f"{name}: {states[name]}")
                shown = states
            if not seen:
                return result
