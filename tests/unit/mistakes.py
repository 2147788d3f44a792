"""What the tests of references share: short inventories, and the lines of the message that each causes."""

from __future__ import annotations

import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model

S, F = "mesh_services", "mesh_front_proxies"
LOCAL = "settings: {engine: local}\n"
KUBERNETES = "settings: {engine: kubernetes}\n"
TWO = "  - {name: b, port: 8081}\n  - {name: c, port: 8081}\n"
QUEUE = "  - {name: queue, port: 9000, protocol: tcp}\n"
SECRET = "  - {name: secret, port: 9443, protocol: tls}\n"
FAR = "  - {name: far, port: 80, discovery: static, endpoints: [{address: 10.0.0.1}]}\n"
OUT = "  - {name: out, port: 443, host: api.example.com}\n"
FIRST = f"{S}[0].upstreams[0]"


def problems_of(inventory: str) -> list[str]:
    """The lines of the one message an inventory causes."""
    data = yaml.safe_load(inventory)
    try:
        build_model(data.get("services"), data.get("fronts"), data.get("settings"))
    except ModelError as error:
        return error.problems
    return []


def upstream(text: str, more: str = "") -> str:
    return f"services:\n  - {{name: a, port: 8080, {more} upstreams: [{text}]}}\n{TWO}{QUEUE}{SECRET}{FAR}{OUT}"


def front(text: str) -> str:
    return f"services:\n{TWO}{QUEUE}{SECRET}fronts:\n  - {text}\n"
