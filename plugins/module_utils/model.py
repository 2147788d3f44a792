# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model: an inventory checked as a whole, with every default filled in and every reference resolved.

Nothing after it sees raw inventory. The model is plain data:

* ``mesh``: the mesh's own settings (the schema's MESH)
* ``services``, ``front_proxies``: as in the inventory, normalised (see the schema)
* ``replicas``: on the local engine one entry a replica: name, workload, index, address, zone
* ``proxies``: one entry an Envoy configuration, ready for the builders (see proxies)
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import check, check_fields
from ansible_collections.sidecar.mesh.plugins.module_utils.local import allocate, map_ports
from ansible_collections.sidecar.mesh.plugins.module_utils.proxies import build_proxies
from ansible_collections.sidecar.mesh.plugins.module_utils.references import reference_problems
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import MESH, SECTIONS
from ansible_collections.sidecar.mesh.plugins.module_utils.services import runs_here

Model = dict[str, Any]


class ModelError(ValueError):
    """The inventory is wrong; ``problems`` has one line for each mistake: path, value, what is allowed."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"The mesh inventory has {count}:", *(f"  {problem}" for problem in problems)]))


def build_model(services: Any, front_proxies: Any = None, settings: dict[str, Any] | None = None) -> Model:
    """The model of an inventory.

    ``services`` and ``front_proxies`` are the lists of the inventory, ``settings`` the mesh's own (the schema's MESH).
    Without an engine in ``settings`` nothing that only a deployment needs (image, command) is asked for.

    Raises ModelError with every mistake at once.
    """
    settings = settings or {}
    problems: list[str] = []
    mesh = _mesh(settings, problems)
    deployed = settings.get("engine") in MESH["engine"]["choices"]
    services = _section("mesh_services", services, problems)
    front_proxies = _section("mesh_front_proxies", front_proxies, problems)
    if mesh["engine"] == "local":
        services, front_proxies = map_ports(services), map_ports(front_proxies)
        mesh["control_plane"] = map_ports(mesh["control_plane"])
    # Versions of one service may have the same mistake.
    problems += dict.fromkeys(reference_problems(services, front_proxies, mesh, deployed))
    if problems:
        raise ModelError(problems)
    return _resolve(mesh, services, front_proxies)


def _mesh(settings: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    mine: list[str] = []
    mesh = check_fields(settings, MESH, "mesh", mine)
    # The inventory's variables are mesh_name, mesh_engine, …
    problems.extend(problem.replace("mesh.", "mesh_", 1) for problem in mine)
    return mesh


def _section(name: str, value: Any, problems: list[str]) -> list[dict[str, Any]]:
    """The items of a list of the inventory; of one with mistakes no more than its name, which others may refer to.

    Raises ModelError where there is no list: all references to it would be wrong too.
    """
    if not isinstance(value or [], list):
        check(value, SECTIONS[name], name, problems)
        raise ModelError(problems)
    items = []
    for index, raw in enumerate(value or []):
        mine: list[str] = []
        item = check(raw, SECTIONS[name]["items"], f"{name}[{index}]", mine)
        items.append({"name": (item or {}).get("name"), "broken": True} if mine else item)
        problems.extend(mine)
    return items


def _resolve(mesh: dict[str, Any], services: list[dict[str, Any]], front_proxies: list[dict[str, Any]]) -> Model:
    workloads = [*filter(runs_here, services), *front_proxies]
    replicas = allocate(mesh["name"], workloads) if mesh["engine"] == "local" else []
    return {
        "mesh": mesh,
        "services": services,
        "front_proxies": front_proxies,
        "replicas": replicas,
        "proxies": build_proxies(mesh, services, front_proxies, replicas),
    }
