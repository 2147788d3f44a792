# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the checks of an inventory into probes: what to ask, and what must come back."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import CHECKS
from ansible_collections.sidecar.mesh.plugins.module_utils.services import runs_here

Item = dict[str, Any]


def probes(model: Item, checks: list[Item], paths: Item) -> list[Item]:
    """One probe a check, for mesh_probe. ``paths``: logs, applications, grpcurl. Raises ModelError."""
    problems: list[str] = []
    known = check(checks, CHECKS, "mesh_checks", problems)
    names = {item["name"] for item in [*model["services"], *model["front_proxies"]]}
    for index, item in enumerate(known):
        if item is None:  # is no dict, which was told
            continue
        mentioned = [name for name in [item["service"], item["front"], *(item["passes"] or [])] if name]
        problems += [f"mesh_checks[{index}]: {name!r} is not in the mesh" for name in mentioned if name not in names]
        problems += [f"mesh_checks[{index}].{problem}" for problem in _unprovable(model, item, names)]
        if (item["url"] is None) == (item["grpc"] is None):
            problems.append(f"mesh_checks[{index}]: give exactly one of url or grpc")
    if problems:
        raise ModelError(problems)
    return [_probe(model, item, paths) for item in known]


def _unprovable(model: Item, item: Item, names: set[str]) -> Iterator[str]:
    """What of a check could never come true, or would always."""
    proxies = {proxy["workload"] for proxy in model["proxies"]}
    for name in item["passes"] or []:
        if name in names and name not in proxies:
            yield f"passes: {name!r} has no proxy here, and so no access log; remove it"
    here = {service["name"] for service in model["services"] if runs_here(service)}
    if item["service"] in names and not here.intersection(_answering(model, item["service"])):
        yield f"service: {item['service']!r} has no replicas here, which could all answer; remove it"


def _probe(model: Item, item: Item, paths: Item) -> Item:
    answering = {name: _replicas(model, name) for name in _answering(model, item["service"])}
    return {
        "name": item["name"],
        "url": item["url"],
        "command": _grpcurl(item, paths) if item["grpc"] else [],
        "body": item["body"],
        "hostnames": [name for replicas in answering.values() for name in replicas],
        "logs": [_logs(model, workload, paths) for workload in item["passes"] or []],
        "healthy": _healthy(model, item, answering) if item["front"] and item["service"] else [],
    }


def _answering(model: Item, name: str | None) -> list[str]:
    """The services whose replicas answer for one: the versions that share its requests, or itself."""
    versions = next((item["versions"] or [] for item in model["services"] if item["name"] == name), [])
    return [version["service"] for version in versions if version["weight"]] or ([name] if name else [])


def _replicas(model: Item, workload: str) -> list[str]:
    return [replica["name"] for replica in model["replicas"] if replica["workload"] == workload]


def _grpcurl(item: Item, paths: Item) -> list[str]:
    call = item["grpc"]
    folder, file = posixpath.split(posixpath.join(paths["applications"], call["proto"]))
    return [
        paths["grpcurl"],
        "-v",
        *(["-insecure"] if call["tls"] else ["-plaintext"]),
        *("-import-path", folder, "-proto", file, "-d", json.dumps(call["message"])),
        call["address"],
        call["method"],
    ]


def _logs(model: Item, workload: str, paths: Item) -> Item:
    """The log of every Envoy of a workload; one of them must know the request."""
    return {
        "workload": workload,
        "files": [
            f"{paths['logs']}/{proxy['name']}.{proxy['kind']}.log"
            for proxy in model["proxies"]
            if proxy["workload"] == workload
        ],
    }


def _healthy(model: Item, item: Item, answering: dict[str, list[str]]) -> list[Item]:
    return [
        {
            "proxy": proxy["name"],
            "admin": f"{proxy['addresses']['admin']}:{proxy['envoy']['admin_port']}",
            "cluster": name,
            "members": len(replicas),
        }
        for proxy in model["proxies"]
        if proxy["workload"] == item["front"]
        for name, replicas in answering.items()
    ]
