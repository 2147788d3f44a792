#!/usr/bin/env python3
"""The inventory of a fleet, as a file that Ansible runs: NODES names the fleet (default: pair)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nodes.places import FLEETS, KEY, LIMIT, USER, Fleet


def inventory(fleet: Fleet) -> Mapping[str, Any]:
    """As a user would write it, with the limits that the nodes themselves have."""
    groups = {
        f"k3s_{kind}s": {
            "hosts": {node.name: {"ansible_host": node.address} for node in fleet.nodes if node.kind == kind}
        }
        for kind in ("server", "agent")
    }
    options = (
        f"-o UserKnownHostsFile={fleet.folder}/known_hosts -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5"
        " -o ServerAliveInterval=10 -o ServerAliveCountMax=3"
    )
    variables = {
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(KEY),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
        "k3s_service_settings": {"LimitNOFILE": LIMIT, "LimitNPROC": LIMIT},
    }
    return {"all": {"children": {"k3s_cluster": {"children": groups, "vars": variables}}}}


def _as_ansible_asks(fleet: Fleet) -> Mapping[str, Any]:
    """What a program that is an inventory prints."""
    cluster = inventory(fleet)["all"]["children"]["k3s_cluster"]
    of_hosts = {name: of for group in cluster["children"].values() for name, of in group["hosts"].items()}
    groups = {name: {"hosts": sorted(group["hosts"])} for name, group in cluster["children"].items()}
    return {
        **groups,
        "k3s_cluster": {"children": sorted(groups), "vars": cluster["vars"]},
        "all": {"vars": {"nodes_balanced": fleet.balanced}},
        "_meta": {"hostvars": of_hosts},
    }


if __name__ == "__main__":
    print(json.dumps(_as_ansible_asks(FLEETS[os.environ.get("NODES", "pair")])))
