# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a mesh is: what runs of what should, which configuration it has, and how long certificates last. Pure.

A workload is plain data: ``name``, ``component``, ``ready``, ``wanted``, and ``replicas``, each with ``name``,
``place`` (node or address), ``state``, ``restarts``, ``config``, ``refused`` (updates) and ``certificate_days``. What
is not known, or is not there, is None.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import control_plane, names, pods
from ansible_collections.sidecar.mesh.plugins.module_utils.admin import Stats, file_versions, pending, refusals
from ansible_collections.sidecar.mesh.plugins.module_utils.summary import table

Item = dict[str, Any]

CURRENT = "current"
_NO_CERTIFICATE = 100_000
"""Days; an Envoy without certificates says something larger."""
_HEADS = ["READY", "REPLICA", "PLACE", "STATE", "RESTARTS", "CONFIG", "REFUSED", "CERTIFICATE"]
_SECTIONS = {names.SIDECAR: "SERVICE", names.FRONT_PROXY: "FRONT PROXY", names.CONTROL_PLANE: "CONTROL PLANE"}
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


def configuration(files: dict[str, str], stats: Stats, sent: Item | None = None) -> Item:
    """What an Envoy makes of its files: ``config`` and ``refused``. ``sent``: the control plane's entry of it."""
    if sent:
        late = control_plane.late(sent, files)
        refused = dict.fromkeys(control_plane.refused(sent), 1)
    else:
        late = pending(stats, file_versions(files))
        refused = {name: refusals(stats, name) for name in files}
    told = [name for name in late if refused.get(name)]
    behind = f"behind: {', '.join(late)}" if late else CURRENT
    config = f"refused: {', '.join(told)}" if told else behind
    return {"config": config, "refused": sum(refused.values()), "certificate_days": _days(stats)}


def _days(stats: Stats) -> int | None:
    """Until the first certificate that an Envoy has expires."""
    days = int(stats.get("server.days_until_first_cert_expiring", _NO_CERTIFICATE))
    return days if days < _NO_CERTIFICATE else None


def pod(found: Item) -> Item:
    """A replica, before its Envoy was asked."""
    return {
        "name": found["metadata"]["name"],
        "place": found["spec"].get("nodeName"),
        "state": pods.trouble(found) or "ready",
        "restarts": pods.restarts(found),
        "config": None,
        "refused": None,
        "certificate_days": None,
    }


def deployments(found: list[Item], replicas: dict[str, list[Item]]) -> list[Item]:
    """Workloads of Deployments. ``replicas``: by workload."""
    return [
        {
            "name": item["metadata"]["name"],
            "component": label(item, names.COMPONENT_LABEL),
            "ready": item.get("status", {}).get("readyReplicas", 0),
            "wanted": item["spec"].get("replicas", 1),
            "replicas": sorted(replicas.get(item["metadata"]["name"], []), key=lambda replica: str(replica["name"])),
        }
        for item in sorted(found, key=lambda item: str(item["metadata"]["name"]))
    ]


def label(found: Item, name: str) -> str:
    return str((found["metadata"].get("labels") or {}).get(name, ""))


def expiry(pem: str) -> datetime | None:
    """When the first certificate of a file ends. Source: RFC 5280, 4.1."""
    found = _PEM.search(pem)
    try:
        der = base64.b64decode(found[1]) if found else b""
        certificate = next(_elements(der))[1]
        # Version (if it is there), serial number, signature algorithm, issuer, validity.
        fields = [item for item in _elements(next(_elements(certificate))[1]) if item[0] != 0xA0]
        tag, end = list(_elements(fields[3][1]))[1]
        form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
        return datetime.strptime(end.decode(), form).replace(tzinfo=timezone.utc)  # noqa: UP017 - as older Pythons do
    except (binascii.Error, StopIteration, IndexError, ValueError):
        return None


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each element. Source: X.690, DER."""
    while der:
        tag, size, start = der[0], der[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        yield tag, der[start : start + size]
        der = der[start + size :]


def secret(found: Item, now: datetime) -> Item:
    """A certificate by the name of its Secret, with the days that are left; None where it cannot be read."""
    try:
        pem = base64.b64decode((found.get("data") or {}).get("tls.crt", "")).decode()
    except ValueError:
        pem = ""
    return certificate(found["metadata"]["name"], pem, now)


def certificate(name: str, pem: str, now: datetime) -> Item:
    end = expiry(pem)
    return {"name": name, "days": (end - now).days if end else None}


def lines(mesh: str, where: str, workloads: list[Item], certificates: list[Item], notes: list[str]) -> list[str]:
    """The same for people. ``notes``: what was refused, and what could not be asked."""
    sections = [
        table([head, *_HEADS], [row for item in workloads if item["component"] == component for row in _rows(item)])
        for component, head in _SECTIONS.items()
    ]
    sections += [table(["CERTIFICATE", "DAYS LEFT"], [[item["name"], _shown(item["days"])] for item in certificates])]
    sections += [notes]
    found = [line for section in sections if section for line in ["", *section]]
    return [f"Mesh {mesh!r} {where}", *(found or ["", "Nothing is there."])]


def _rows(workload: Item) -> Iterator[list[str]]:
    """One for each replica; the workload's own columns are in the first."""
    own = [workload["name"], f"{workload['ready']}/{workload['wanted']}"]
    for replica in workload["replicas"] or [{"name": None}]:
        days = replica.get("certificate_days")
        yield [
            *own,
            *(_shown(replica.get(key)) for key in ("name", "place", "state", "restarts", "config", "refused")),
            "-" if days is None else f"{days} days",
        ]
        own = ["", ""]


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
