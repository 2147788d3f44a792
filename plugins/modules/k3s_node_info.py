#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_node_info
short_description: Tell what of a machine matters for k3s, and what of k3s is there
version_added: 0.1.0
description:
  - Reads control groups, kernel modules, sysctls, ports and who holds them, routes, firewalls, the clock, and what of
    k3s is installed and runs.
  - This module serves role P(sidecar.mesh.k3s#role). Its result may change in any version.
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    support: full
    description: Nothing is changed.
  diff_mode:
    support: N/A
    description: Nothing is changed.
options:
  program:
    description: Where the k3s binary is or will be.
    type: path
    default: /usr/local/bin/k3s
  data_path:
    description: Where k3s keeps its data.
    type: path
    default: /var/lib/rancher/k3s
  token:
    description: A token to compare with that of the cluster.
    type: str
    default: ""
  seal:
    description: >-
      A secret of the run, with which the digests of tokens are made, so that those of several nodes can be compared
      and none be guessed.
    type: str
    default: ""
  hash_program:
    description: Whether the binary's SHA-256 is told.
    type: bool
    default: false
  archives:
    description: Names of archives of images whose size and time are told, if they are there.
    type: list
    elements: str
    default: []
  controller_time:
    description: What the clock of the machine that asks says, in seconds since 1970.
    type: float
seealso:
  - module: ansible.builtin.setup
"""

EXAMPLES = r"""
- name: Look at the machine
  sidecar.mesh.k3s_node_info:
    data_path: /srv/k3s
  register: node
"""

RETURN = r"""
facts:
  description: Which machine it is, and where.
  returned: always
  type: dict
  contains:
    architecture: {description: Of the machine, type: str, sample: x86_64}
    kernel: {description: Its release, type: str, sample: 6.1.0-18-amd64}
    nodename: {description: The machine's name, type: str, sample: server-1}
    address: {description: The IPv4 address of its default route; empty without one, type: str, sample: 192.0.2.11}
    network: {description: The network of that address, type: str, sample: 192.0.2.0/24}
machine:
  description: What has nothing to do with k3s itself.
  returned: always
  type: dict
ports:
  description: Who holds each of the ports, by port, unless it is k3s.
  returned: always
  type: dict
  sample: {"6443": "pid 812 (nginx: master process)"}
k3s:
  description: What of k3s is there.
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_facts

ROOT = Path("/")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "path", "default": "/usr/local/bin/k3s"},
            "data_path": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "token": {"type": "str", "default": "", "no_log": True},
            "seal": {"type": "str", "default": "", "no_log": True},
            "hash_program": {"type": "bool", "default": False},
            "archives": {"type": "list", "elements": "str", "default": []},
            "controller_time": {"type": "float"},
        },
        supports_check_mode=True,
    )
    given = module.params

    def run(command: list[str]) -> str:
        try:
            status, output, _errors = module.run_command(command, handle_exceptions=False)
        except OSError:
            return ""
        return output if status == 0 else ""

    machine = k3s_facts.machine(ROOT, given["data_path"], run)
    if given["controller_time"] is not None:
        machine["clock_ahead"] = round(machine["time"] - given["controller_time"], 1)
    module.exit_json(
        changed=False,
        facts=k3s_facts.identity(ROOT),
        machine=machine,
        ports=k3s_facts.ports(),
        k3s=k3s_facts.installed(
            ROOT,
            given["program"],
            given["data_path"],
            given["token"],
            given["seal"],
            given["hash_program"],
            given["archives"],
            run,
        ),
    )


if __name__ == "__main__":
    main()
