# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the local engine runs for a model: programs, the ports they need, and the records of the DNS server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names, services
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import bootstrap, command
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.local import (
    DNS_PORT,
    control_plane_address,
    dns_address,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError
from ansible_collections.sidecar.mesh.plugins.module_utils.served import mesh_certificates
from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Item = dict[str, Any]

DNS_PROGRAM = "dns"
RECORD_TTL_SECONDS = 1
APPLICATION_STOP_SECONDS = 15
PRIORITIES = {"dns": 1, "control-plane": 2, "application": 10, "sidecar": 20, "front": 30}
SHIPPED = "$(APPLICATIONS)/"
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def local_plan(model: Item, paths: Item) -> Item:
    """Everything role local needs to know.

    ``paths``: state (the mesh's folder), python and envoy (binaries), path (PATH of applications), applications
    (folder of the shipped ones), dns_server (the script), control_plane (``python`` and its ``modules``), and
    ``versions`` of envoy, applications, dns_server and control_plane, whose change restarts what they run.
    Returns ``programs`` (for local_processes), ``listeners`` and ``binaries`` (for local_preflight), ``zone`` (for
    local_publish), ``control_plane`` (for local_publish, too), ``applications`` (names of shipped ones in use) and
    ``certificates`` (names of those that listeners serve; those that proxies show to servers outside are given by their
    owners).

    Raises SelectionError for a model of another engine.
    """
    if model["mesh"]["engine"] != "local":
        engine = model["mesh"]["engine"]
        raise SelectionError(f"mesh_engine: {engine!r} has no local plan; give a model of engine local")
    replicas = {replica["name"]: replica for replica in model["replicas"]}
    return {
        "programs": sorted(_programs(model, replicas, paths), key=lambda item: (item["priority"], item["name"])),
        "listeners": list(_listeners(model)),
        "binaries": list(_binaries(model, paths)),
        "zone": zone(model),
        "control_plane": {
            "wanted": model["mesh"]["config_delivery"] == "ads",
            "published": _published_file(paths),
            "status": _status_address(model["mesh"]),
        },
        "applications": sorted({name for service in model["services"] for name in _shipped(service)}),
        "certificates": list(mesh_certificates(model)),
    }


def _published_file(paths: Item) -> str:
    return f"{paths['state']}/{names.CONTROL_PLANE}/published.json"


def _status_address(mesh: Item) -> str:
    return f"{control_plane_address(mesh['name'])}:{mesh['control_plane']['status_port']}"


def zone(model: Item) -> Item:
    """Names and addresses of all services that run here, as the DNS server reads them."""
    mesh = model["mesh"]
    addresses: dict[str, list[str]] = {}
    for service in model["services"]:
        if services.runs_here(service):
            addresses[names.dns_name(service["name"], mesh["namespace"], mesh["domain"])] = []
    for replica in model["replicas"]:
        name = names.dns_name(replica["workload"], mesh["namespace"], mesh["domain"])
        if name in addresses and replica["name"] not in mesh["resting"]:
            addresses[name].append(replica["address"])
    return {"ttl": RECORD_TTL_SECONDS, "domain": mesh["domain"], "records": addresses}


def expand(text: str, variables: dict[str, str]) -> str:
    """``$(NAME)`` replaced by the variable, ``$$`` by ``$``; unknown names stay.

    Source: Kubernetes docs, "Define Dependent Environment Variables".
    """
    return _REFERENCE.sub(lambda match: "$" if match[0] == "$$" else variables.get(match[1], match[0]), text)


def environment(service: Item, replica: Item, paths: Item) -> dict[str, str]:
    """The environment of one replica's application: what the engine tells it, then what the inventory says."""
    variables = {
        "APPLICATIONS": paths["applications"],
        "BIND_ADDRESS": replica["address"],
        "HOSTNAME": replica["name"],
        "PATH": paths["path"],
        "POD_NAME": replica["name"],
        "PORT": str(service["port"]),
        **{
            names.upstream_variable(
                upstream["service"]
            ): f"{replica['address']}:{upstream['port'] or service['egress']['port']}"
            for upstream in service["upstreams"]
        },
    }
    for name, value in service["environment"].items():
        variables[name] = expand(value, variables)
    return variables


def _programs(model: Item, replicas: dict[str, Item], paths: Item) -> Iterator[Item]:
    yield _dns(model["mesh"], paths)
    if model["mesh"]["config_delivery"] == "ads":
        yield _control_plane(model["mesh"], paths)
    known = {service["name"]: service for service in model["services"]}
    for replica in model["replicas"]:
        if replica["workload"] in known:
            yield _application(known[replica["workload"]], replica, paths)
    for proxy in model["proxies"]:
        yield _envoy(proxy, replicas[proxy["name"]], paths)


def _dns(mesh: Item, paths: Item) -> Item:
    address = dns_address(mesh["name"])
    command = [paths["python"], paths["dns_server"], "--address", address, "--port", str(DNS_PORT)]
    return {
        **_program(
            DNS_PROGRAM, [*command, "--zone", f"{paths['state']}/zone.json"], paths["versions"]["dns_server"], {}, paths
        ),
        "priority": PRIORITIES["dns"],
        "ready": {"tcp": f"{address}:{DNS_PORT}"},
        "stop_seconds": 5,
    }


def _control_plane(mesh: Item, paths: Item) -> Item:
    address, ports = control_plane_address(mesh["name"]), mesh["control_plane"]
    status, state, tools = _status_address(mesh), paths["state"], paths["control_plane"]
    command = [
        *(tools["python"], "-m", "control_plane"),
        *("--listen", f"{address}:{ports['port']}", "--status", status),
        *("--published", _published_file(paths), "--zone", f"{state}/zone.json"),
        *("--suffix", f"{mesh['namespace']}.svc.{mesh['domain']}"),
        *("--token", f"{state}/{names.CONTROL_PLANE}/token"),
    ]
    variables = {"PYTHONPATH": ":".join(tools["modules"])}
    return {
        **_program(names.CONTROL_PLANE, command, paths["versions"]["control_plane"], variables, paths),
        "priority": PRIORITIES["control-plane"],
        # An Envoy that does not find it within its patience starts from its files.
        "first": True,
        "ready": {"http": f"http://{status}/ready"},
        "stop_seconds": 5,
    }


def _application(service: Item, replica: Item, paths: Item) -> Item:
    variables = environment(service, replica, paths)
    command = [expand(word, variables) for word in service["command"]]
    version = paths["versions"]["applications"] if _shipped(service) else ""
    program = _program(f"{replica['name']}.application", command, version, variables, paths)
    return {
        **program,
        "directory": expand(service["directory"] or paths["state"], variables),
        "priority": PRIORITIES["application"],
        "ready": {"tcp": f"{replica['address']}:{service['port']}"},
        "stop_seconds": APPLICATION_STOP_SECONDS,
    }


def _envoy(proxy: Item, replica: Item, paths: Item) -> Item:
    admin = f"{replica['address']}:{proxy['envoy']['admin_port']}"
    version = f"{paths['versions']['envoy']}-{content_hash(bootstrap(proxy))}"
    started = command(proxy, proxy["name"], paths["envoy"])
    return {
        **_program(f"{proxy['name']}.{proxy['kind']}", started, version, {}, paths),
        "priority": PRIORITIES[proxy["kind"]],
        "ready": {"http": f"http://{admin}/ready"},
        "drain": {"admin": admin, "seconds": seconds(proxy["envoy"]["drain_time"])},
        "stop_seconds": 5,
    }


def _program(name: str, command: list[str], version: str, variables: dict[str, str], paths: Item) -> Item:
    """``version`` is of what the process reads at its start: another one is another process."""
    return {
        "name": name,
        "command": command,
        # By the first a later run knows its own processes from those of strangers.
        "environment": {**variables, "SIDECAR_MESH": paths["state"], "SIDECAR_MESH_VERSION": version},
        "directory": paths["state"],
        "log": f"{paths['state']}/logs/{name}.log",
    }


def _listeners(model: Item) -> Iterator[Item]:
    """Every port the mesh listens on, with the variable that chooses it."""
    mesh = model["mesh"]
    for proto in ("udp", "tcp"):
        yield {
            "address": dns_address(mesh["name"]),
            "port": DNS_PORT,
            "proto": proto,
            "owner": "the DNS server",
            "variable": "mesh_name",
        }
    if mesh["config_delivery"] == "ads":
        for key in ("port", "status_port"):
            yield _listening(
                control_plane_address(mesh["name"]),
                mesh["control_plane"][key],
                "the control plane",
                f"mesh_control_plane: {key}",
            )
    known = {service["name"]: service for service in model["services"]}
    for replica in model["replicas"]:
        if replica["workload"] in known:
            service = known[replica["workload"]]
            yield _listening(
                replica["address"], service["port"], replica["name"], f"mesh_services ({service['name']}): port"
            )
    for proxy in model["proxies"]:
        section = "mesh_services" if proxy["kind"] == "sidecar" else "mesh_front_proxies"
        where = f"{section} ({proxy['workload']}):"
        yield _listening(
            proxy["addresses"]["admin"], proxy["envoy"]["admin_port"], proxy["name"], f"{where} admin_port"
        )
        for listener in proxy["listeners"]:
            yield _listening(
                listener["address"], listener["port"], proxy["name"], f"{where} {listener['direction']} port"
            )


def _binaries(model: Item, paths: Item) -> Iterator[Item]:
    """The program every service runs, as its first replica looks for it."""
    first = {replica["workload"]: replica for replica in model["replicas"] if replica["index"] == 1}
    for service in model["services"]:
        if service["name"] in first:
            variables = environment(service, first[service["name"]], paths)
            program = expand(service["command"][0], variables)
            folder = expand(service["directory"] or paths["state"], variables)
            yield {
                "path": os.path.join(folder, program) if "/" in program else program,  # noqa: PTH118 - text in, text out
                "search": variables["PATH"],
                "variable": f"mesh_services ({service['name']}): command",
            }


def _listening(address: str, port: int, owner: str, variable: str) -> Item:
    return {"address": address, "port": port, "proto": "tcp", "owner": owner, "variable": variable}


def _shipped(service: Item) -> list[str]:
    """The shipped application a service runs, if it does."""
    directory = service["directory"] or ""
    return [directory.removeprefix(SHIPPED).split("/")[0]] if directory.startswith(SHIPPED) else []


def restart_batches(model: Item, programs: list[str]) -> list[Item]:
    """In which order to restart programs: one replica of every workload at a time.

    Each batch has ``programs`` and ``resting``: the replicas that others can stand in for meanwhile.
    """
    replicas = {replica["name"]: replica for replica in model["replicas"]}
    siblings = {
        name: sum(other["workload"] == item["workload"] for other in replicas.values())
        for name, item in replicas.items()
    }
    batches: dict[int, Item] = {}
    for program in programs:
        replica = replicas.get(program.rpartition(".")[0])
        batch = batches.setdefault(replica["index"] if replica else 0, {"programs": [], "resting": []})
        batch["programs"].append(program)
        if replica and siblings[replica["name"]] > 1 and replica["name"] not in batch["resting"]:
            batch["resting"].append(replica["name"])
    return [batches[index] for index in sorted(batches)]
