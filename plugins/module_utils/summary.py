# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mesh in words: what runs where, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services

Item = dict[str, Any]


def summary(model: Item, probes: list[Item] | None = None) -> list[str]:
    """Lines for a person: services with their replicas, fronts with their URLs, commands to copy.

    The commands are those of the probes, or without any one for each route.
    """
    mesh = model["mesh"]
    commands = [_probe_command(probe) for probe in probes or []] or list(_commands(model))
    return [
        f"Mesh {mesh['name']!r} on engine {mesh['engine']}",
        "",
        *table(["SERVICE", "PROTOCOL", "REPLICAS", "PORT", "CALLS", "ADDRESSES"], list(_services(model))),
        "",
        *table(["FRONT PROXY", "URL", "ROUTES"], list(_fronts(model))),
        "",
        "Try",
        *(f"  {command}" for command in commands),
    ]


def _probe_command(probe: Item) -> str:
    return shlex.join(probe["command"]) if probe["command"] else shlex.join(["curl", probe["url"]])


def _services(model: Item) -> Iterator[list[str]]:
    for service in model["services"]:
        addresses = [replica["address"] for replica in model["replicas"] if replica["workload"] == service["name"]]
        addresses += [endpoint["address"] for endpoint in service["endpoints"] or []]
        addresses += [service["host"]] if service["host"] else []
        addresses += [_share(version) for version in service["versions"] or []]
        calls = [upstream["service"] for upstream in service["upstreams"]]
        yield [
            service["name"],
            service["protocol"],
            str(service["replicas"]) if services.runs_here(service) else "-",
            "-" if service["versions"] else str(services.port(service)),
            ", ".join(calls) or "-",
            " ".join(addresses) or "-",
        ]


def _share(version: Item) -> str:
    claims = [name for name in ("headers", "cookie") if version[name]]
    shares = [*([f"{version['weight']}"] if version["weight"] else []), *(f"by {name}" for name in claims)]
    return f"{version['service']} ({', '.join(shares)})"


def _fronts(model: Item) -> Iterator[list[str]]:
    for front in model["front_proxies"]:
        for listener in front["listeners"]:
            yield [front["name"], _url(model, front, listener), ", ".join(_routes(front, listener))]


def _routes(front: Item, listener: Item) -> list[str]:
    if listener["https_redirect"]:
        return ["to https"]
    if listener["service"]:
        return [f"all to {listener['service']}"]
    if listener["services"]:
        return [f"by name to {name}" for name in listener["services"]]
    return [
        f"{route['prefix'] or route['path'] or route['regex'] or route['grpc']} to {route['service']}"
        for route in services.front_routes(front)
    ]


def _url(model: Item, front: Item, listener: Item) -> str:
    mesh = model["mesh"]
    local = mesh["engine"] == "local"
    host = "localhost" if local else names.dns_name(front["name"], mesh["namespace"], mesh["domain"])
    scheme = listener["protocol"] if listener["protocol"] != "http" else ("https" if listener["tls"] else "http")
    return f"{scheme}://{host}:{listener['port']}"


def _commands(model: Item) -> Iterator[str]:
    known = {service["name"]: service for service in model["services"]}
    for front in model["front_proxies"]:
        for listener in front["listeners"]:
            if listener["protocol"] != "http" or listener["https_redirect"]:
                continue
            for route in services.front_routes(front):
                path = route["path"] or route["prefix"]
                if path and known[route["service"]]["protocol"] != "grpc":
                    yield f"curl {'-k ' if listener['tls'] else ''}{_url(model, front, listener)}{path}"


def table(heads: list[str], rows: list[list[str]]) -> list[str]:
    """Lines with columns of one width; none without rows."""
    if not rows:
        return []
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]
