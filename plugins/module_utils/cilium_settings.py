# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What role cilium takes: the shape of its settings, checked as a whole before anything is asked of a cluster."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.check import Problems, check_fields
from ansible_collections.sidecar.mesh.plugins.module_utils.cilium_checks import problems_of
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import COUNT, IP, PORT, Field, Fields

Settings = dict[str, Any]

_MAP: Field = {"type": "map", "items": {"type": "any"}}

HUBBLE: Fields = {
    "enabled": {"type": "bool", "default": True},
    "relay": {"type": "bool", "default": False},
    "ui": {"type": "bool", "default": False},
    "metrics": {"type": "list", "items": {"type": "str"}, "default": []},
}

L2: Fields = {
    "enabled": {"type": "bool", "default": True},
    "interfaces": {"type": "list", "items": {"type": "str"}, "default": []},
    "node_selector": {**_MAP, "default": {}},
    "service_selector": {**_MAP, "default": {}},
    "lease_duration": {"type": "duration", "default": "3s"},
    "renew_deadline": {"type": "duration", "default": "2s"},
    "retry_period": {"type": "duration", "default": "500ms"},
    "services": {**COUNT, "default": 10},
}

BLOCK: Fields = {"cidr": {"type": "str", "pattern": "cidr"}, "start": IP, "stop": IP}

POOL: Fields = {
    "name": {"type": "str", "pattern": "dns_label", "required": True},
    "blocks": {"type": "list", "items": {"type": "dict", "fields": BLOCK}, "required": True},
    "service_selector": {**_MAP, "default": {}},
}

FIELDS: Fields = {
    "version": {"type": "str", "required": True},
    "pod_cidr": {"type": "list", "items": {"type": "str", "pattern": "cidr"}, "required": True},
    "api_host": {"type": "str", "default": ""},
    "api_port": {**PORT, "default": 6443},
    "kube_proxy_replacement": {"type": "bool", "default": False},
    "node_count": {"type": "int", "minimum": 0, "default": 0},
    "operator_replicas": {"type": "int", "minimum": 0, "default": 0},
    "operator_tolerations": {"type": "list", "items": _MAP, "default": []},
    "hubble": {"type": "dict", "fields": HUBBLE, "default": {}},
    "wireguard": {"type": "bool", "default": False},
    "lb_pools": {"type": "list", "items": {"type": "dict", "fields": POOL}, "default": []},
    "l2": {"type": "dict", "fields": L2, "default": {"enabled": False}},
    "values": {**_MAP, "default": {}},
}
"""The role's variables that Cilium's configuration is made of, without their prefix."""


class SettingsError(Exception):
    """Mistakes in the role's variables; the text has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        count = len(problems)
        head = f"Role cilium has {count} problem{'' if count == 1 else 's'}:"
        super().__init__("\n  ".join([head, *problems]))
        self.problems = problems


def check_settings(raw: dict[str, Any]) -> Settings:
    """The settings in their normal form: plain types, defaults filled in, durations in seconds with an ``s``.

    ``raw``: the role's variables without the prefix ``cilium_``. Raises SettingsError with every problem.
    """
    problems: Problems = []
    networks = raw.get("pod_cidr")
    given = {**raw, "pod_cidr": [networks] if isinstance(networks, str) else networks}
    settings = check_fields({name: given[name] for name in FIELDS if name in given}, FIELDS, "", problems)
    # What has the wrong type cannot be compared with the rest.
    found = [line.removeprefix(".") for line in problems] or list(problems_of(settings))
    if found:
        raise SettingsError([f"cilium_{line}" for line in found])
    return settings
