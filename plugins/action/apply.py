# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of the same name; shows how far rollouts are while it waits for them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

MODULE = "sidecar.mesh.apply"


class ActionModule(ActionBase):
    """A wait is a sequence of runs of the module, each of which returns at progress."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: Any = None, task_vars: Any = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        in_pieces = boolean(self._task.args.get("wait", False), strict=False) and not self._task.async_val
        first = self._run(task_vars, {"resume": {}} if in_pieces else {})
        result.update(first)
        paused = result.pop("paused", None)
        shown = {_line(item) for item in result.get("rollouts", []) if item["done"]}
        while paused:
            shown = _show(result["rollouts"], shown)
            answer = self._run(task_vars, {"definition": [], "resume": paused})
            paused = answer.pop("paused", None)
            _merge(result, answer)
        if in_pieces:
            _show(result.get("rollouts", []), shown)
        return result

    def _run(self, task_vars: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(
            module_name=MODULE,
            module_args={**self._task.args, **arguments},
            task_vars=task_vars,
            wrap_async=bool(self._task.async_val),
        )
        # A module that fails over its arguments has them in its answer as they are.
        module_args = answer.get("invocation", {}).get("module_args", {})
        if not isinstance(module_args.get("definition", ""), str):
            module_args["definition"] = "(not shown)"
        return answer


def _line(item: dict[str, Any]) -> str:
    return f"{item['kind']} {item['namespace']}/{item['name']}: {item['text']}"


def _show(rollouts: list[dict[str, Any]], shown: set[str]) -> set[str]:
    """Display what is new since the lines that were shown."""
    lines = [_line(item) for item in rollouts]
    for line in lines:
        if line not in shown:
            display.display(line)
    return set(lines)


def _merge(result: dict[str, Any], answer: dict[str, Any]) -> None:
    """Add what a later run of the module did to what is known from those before."""
    changed = result.get("changed") or answer.get("changed", False)
    lists = {name: result.get(name, []) + answer.pop(name, []) for name in ("objects", "diff")}
    result.update(answer)
    result.update(lists, changed=changed)
