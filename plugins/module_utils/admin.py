# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running Envoy says about itself on its admin interface.

Source: Envoy docs, "Administration interface" and "Statistics" of xDS subscriptions.
"""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import CLUSTERS_FILE, LISTENERS_FILE

Stats = dict[str, str]

_TIMEOUT = 5.0
_STATS = (
    r"(version_text|update_rejected|update_failure|warming_clusters|total_listeners_warming"
    r"|days_until_first_cert_expiring)$"
)


class UnreachableError(OSError):
    """Nobody answers on the admin address."""


def request(admin: str, path: str, method: str = "GET") -> str:
    """The body of an answer from ``admin`` (address:port). Raises UnreachableError."""
    host, _rest, port = admin.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_TIMEOUT)
    try:
        connection.request(method, path)
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as exc:
        raise UnreachableError(f"{admin}: {exc}") from exc
    finally:
        connection.close()


def runs(admin: str) -> bool:
    """Whether an Envoy answers there."""
    try:
        request(admin, "/ready")
    except UnreachableError:
        return False
    return True


def subscription_stats(admin: str) -> Stats:
    """``{statistic: value}`` of the proxy's subscriptions. Raises UnreachableError."""
    lines = request(admin, f"/stats?filter={_STATS}").splitlines()
    return {name: value.strip('"') for name, _rest, value in (line.partition(": ") for line in lines)}


def file_versions(files: dict[str, str]) -> dict[str, str]:
    """``{file name: version_info}`` of the discovery files of a folder."""
    found = {name: re.search(r"^version_info: '?([0-9a-f]+)'?$", text, re.MULTILINE) for name, text in files.items()}
    return {name: match[1] for name, match in found.items() if match}


def pending(stats: Stats, versions: dict[str, str]) -> list[str]:
    """Files whose version is not active yet; those the proxy has no subscription for are not waited for."""
    late = [name for name, version in versions.items() if accepted_version(stats, name) not in (version, None)]
    if int(stats.get("cluster_manager.warming_clusters", 0)):
        late.append(CLUSTERS_FILE)
    if int(stats.get("listener_manager.total_listeners_warming", 0)):
        late.append(LISTENERS_FILE)
    return sorted(set(late))


def accepted_version(stats: Stats, name: str) -> str | None:
    """The version of a file that the proxy runs; None where it has no subscription for it."""
    return next((stats[key] for key in stats if key.endswith(f"{_scope(name)}.version_text")), None)


def refusals(stats: Stats, name: str) -> int:
    """How often the proxy refused this file so far."""
    scope = _scope(name)
    return sum(
        int(value)
        for key, value in stats.items()
        if key.endswith((f"{scope}.update_rejected", f"{scope}.update_failure"))
    )


def refusal_reasons(admin: str) -> list[str]:
    """What the proxy says about configuration it refused. Source: Envoy docs, "UpdateFailureState"."""
    dump = json.loads(request(admin, "/config_dump"))
    return sorted(set(_error_details(dump)))


def cluster_hosts(admin: str) -> dict[str, set[str]]:
    """``{cluster: {address:port}}`` of the hosts in use. Raises UnreachableError."""
    statuses = json.loads(request(admin, "/clusters?format=json")).get("cluster_statuses", [])
    return {status["name"]: {_host(item) for item in status.get("host_statuses", [])} for status in statuses}


def _host(status: dict[str, Any]) -> str:
    address = status["address"].get("socket_address", {})
    return f"{address.get('address')}:{address.get('port_value')}"


def _scope(name: str) -> str:
    """End of the name of the statistics that belong to a file."""
    if name == CLUSTERS_FILE:
        return "cluster_manager.cds"
    if name == LISTENERS_FILE:
        return "listener_manager.lds"
    kind, _rest, resource = name.removesuffix(".yaml").partition(".")
    return f"cluster.{resource}" if kind == "eds" else f"{kind}.{resource}"


def _error_details(value: Any) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _error_details(item)]
    if not isinstance(value, dict):
        return []
    own = [value["error_state"]["details"]] if "details" in value.get("error_state", {}) else []
    return own + [text for key, item in value.items() if key != "error_state" for text in _error_details(item)]
