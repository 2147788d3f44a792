# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns the checks of an inventory into probes: what to ask, and what must come back."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.local import map_port
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import CHECKS
from ansible_collections.sidecar.mesh.plugins.module_utils.services import runs_here

Item = dict[str, Any]

_LOCAL_HOST = "localhost"
_USUAL_PORTS = {"http": 80, "https": 443}


def probes(model: Item, checks: list[Item], paths: Item) -> list[Item]:
    """One probe a check, for mesh_probe. Raises ModelError.

    ``paths``: applications, grpcurl, and on engine local logs.
    """
    problems: list[str] = []
    known = check(checks, CHECKS, "mesh_checks", problems)
    names = {item["name"] for item in [*model["services"], *model["front_proxies"]]}
    for index, item in enumerate(known):
        if item is None:  # is no dict, which was told
            continue
        mentioned = [name for name in [item["service"], item["front"], *(item["passes"] or [])] if name]
        problems += [f"mesh_checks[{index}]: {name!r} is not in the mesh" for name in mentioned if name not in names]
        problems += [f"mesh_checks[{index}].{problem}" for problem in _unprovable(model, item, names)]
        problems += [f"mesh_checks[{index}].{problem}" for problem in _unreachable(model, item)]
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
    fronts = {front["name"]: front for front in model["front_proxies"]}
    if model["mesh"]["engine"] == "kubernetes" and item["front"] in fronts and not fronts[item["front"]]["metrics"]:
        yield f"front: {item['front']!r} has metrics: false, and so nobody can ask what it counts; remove one of them"


def _unreachable(model: Item, item: Item) -> Iterator[str]:
    """A front proxy that does not listen where a check asks."""
    place = _place(model, item)
    if place and place["port"] not in place["ports"]:
        key = "url" if item["url"] else "grpc.address"
        found = "has several listeners" if place["port"] is None else f"has no listener on port {place['port']}"
        listening = ", ".join(map(str, place["ports"]))
        yield f"{key}: {place['front']!r} {found}; give one of its ports ({listening})"


def _probe(model: Item, item: Item, paths: Item) -> Item:
    answering = _answering(model, item["service"])
    local = model["mesh"]["engine"] == "local"
    place = _place(model, item)
    asked = _asked(item, f"{_LOCAL_HOST}:{place['port']}" if place and local else "")
    return {
        "name": item["name"],
        "url": asked["url"],
        "command": _grpcurl(asked, paths) if asked["grpc"] else [],
        "front": {"name": place["front"], "port": place["port"]} if place and not local else None,
        "body": item["body"],
        "hostnames": [name for workload in answering for name in _replicas(model, workload)] if local else [],
        "pods": [] if local else [{"workload": name, "replicas": _count(model, name)} for name in answering],
        "logs": [_logs(model, workload, paths) for workload in item["passes"] or []],
        "healthy": _healthy(model, item, answering) if item["front"] and item["service"] else [],
    }


def _place(model: Item, item: Item) -> Item | None:
    """The front proxy and port that a check asks by the proxy's name; None where it asks by another name.

    ``port`` is None where it has several, and the check names none.
    """
    asked = urlsplit(item["url"] or f"//{(item['grpc'] or {}).get('address', '')}")
    fronts = {front["name"]: front for front in model["front_proxies"]}
    if asked.hostname not in fronts:
        return None
    ports = [listener["port"] for listener in fronts[asked.hostname]["listeners"]]
    usual = _USUAL_PORTS.get(asked.scheme)
    local = model["mesh"]["engine"] == "local"
    named, usual = (port and map_port(port) if local else port for port in (_named_port(asked), usual))
    if named is None:
        named = usual if usual in ports else ports[0] if len(ports) == 1 else None
    return {"front": asked.hostname, "port": named, "ports": ports}


def _named_port(asked: SplitResult) -> int | None:
    """None where there is none; 0, which nobody listens on, where it is no port."""
    try:
        return asked.port
    except ValueError:
        return 0


def _asked(item: Item, address: str) -> Item:
    """A check with another address; the check itself without one."""
    if not address:
        return item
    if item["grpc"]:
        return {**item, "grpc": {**item["grpc"], "address": address}}
    return {**item, "url": urlsplit(item["url"])._replace(netloc=address).geturl()}


def _answering(model: Item, name: str | None) -> list[str]:
    """The services whose replicas answer for one: the versions that share its requests, or itself."""
    versions = next((item["versions"] or [] for item in model["services"] if item["name"] == name), [])
    return [version["service"] for version in versions if version["weight"]] or ([name] if name else [])


def _replicas(model: Item, workload: str) -> list[str]:
    return [replica["name"] for replica in model["replicas"] if replica["workload"] == workload]


def _count(model: Item, workload: str) -> int:
    return next(int(item["replicas"]) for item in model["services"] if item["name"] == workload)


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
    """The log of every Envoy of a workload; one of them must know the request. Those of pods are no files."""
    local = model["mesh"]["engine"] == "local"
    return {
        "workload": workload,
        "files": [
            f"{paths['logs']}/{proxy['name']}.{proxy['kind']}.log"
            for proxy in model["proxies"]
            if local and proxy["workload"] == workload
        ],
    }


def _healthy(model: Item, item: Item, answering: list[str]) -> list[Item]:
    """What every replica of a front proxy must count, and where it tells: on its admin interface, or beside others."""
    local = model["mesh"]["engine"] == "local"
    return [
        {
            "proxy": proxy["name"],
            "admin": f"{proxy['addresses']['admin']}:{proxy['envoy']['admin_port']}" if local else None,
            "metrics": None if local else proxy["envoy"]["metrics"]["port"],
            "cluster": name,
            "members": _count(model, name),
        }
        for proxy in model["proxies"]
        if proxy["workload"] == item["front"]
        for name in answering
    ]
