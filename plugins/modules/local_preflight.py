#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_preflight
short_description: Checks a machine before a mesh is started on it
version_added: 0.1.0
description:
  - Looks for ports in use, loopback addresses that are not there, folders that cannot be written and missing binaries,
    and fails with all that it found, each with the variable to change and a remedy.
  - A port counts as free when the mesh's own processes hold it, so that a mesh that runs passes.
  - Nothing is changed. To see whether a port is free it is bound for an instant, without listening.
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    support: full
    description: The same checks, since they change nothing.
  diff_mode:
    support: N/A
    description: Nothing is changed.
options:
  state_folder:
    description:
      - State folder of the mesh. Processes with it in their environment variable E(SIDECAR_MESH) are the mesh's own.
    type: path
    required: true
  listeners:
    description: The ports the mesh will listen on.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: An IPv4 or IPv6 address of this machine, or V(0.0.0.0) or V(::).
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      proto:
        description: The protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      owner:
        description: Who will listen, for messages.
        type: str
        required: true
      variable:
        description: The variable that has the port, for messages.
        type: str
        required: true
  folders:
    description: Folders that can be written already, or can be made. 50 MB must be free.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The folder.
        type: path
        required: true
      variable:
        description: The variable that has it, for messages.
        type: str
        required: true
  unix_sockets:
    description: Unix sockets of supervisord, whose paths must not be too long.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The socket.
        type: path
        required: true
      variable:
        description: The variable that decides it, for messages.
        type: str
        required: true
  watched_files:
    description:
      - How many files the mesh's Envoys will watch. Each takes an inotify instance, of which Linux allows a user few.
    type: int
    default: 0
  binaries:
    description: Programs that must be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: A path, or a name that is looked up on E(PATH).
        type: str
        required: true
      variable:
        description: The variable that has it, for messages.
        type: str
        required: true
      remedy:
        description: What to do when it is missing.
        type: str
        default: install it, or name another
      search:
        description: Folders in which a name is looked up, like E(PATH) and in place of it.
        type: str
        default: ""
seealso:
  - module: sidecar.mesh.local_processes
"""

EXAMPLES = r"""
- name: Check the machine
  sidecar.mesh.local_preflight:
    state_folder: ~/.local/state/sidecar-mesh/demo
    listeners:
      - address: 127.0.0.1
        port: 8443
        owner: front proxy edge
        variable: mesh_front_proxies[0].listeners[0].port
      - address: 127.20.7.254
        port: 8053
        proto: udp
        owner: the DNS server
        variable: mesh_name
    folders:
      - path: ~/.local/state/sidecar-mesh/demo
        variable: mesh_state_path
    unix_sockets:
      - path: ~/.local/state/sidecar-mesh/demo/supervisor.sock
        variable: mesh_state_path
    binaries:
      - path: setpriv
        variable: PATH
        remedy: install util-linux
"""

RETURN = r"""
problems:
  description:
    - All that was found, a line for each problem, with the variable, its value, what is wrong and the remedy.
  returned: always
  type: list
  elements: str
  sample:
    - "mesh_front_proxies[0].listeners[0].port: 8443: front proxy edge needs tcp 127.0.0.1:8443, which is held by
      pid 4711 (nginx: master process) on 0.0.0.0:8443; stop that process, or choose another port"
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils import preflight

LISTENER = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "proto": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
    "owner": {"type": "str", "required": True},
    "variable": {"type": "str", "required": True},
}
PATH = {"path": {"type": "path", "required": True}, "variable": {"type": "str", "required": True}}
BINARY = {
    "path": {"type": "str", "required": True},
    "variable": {"type": "str", "required": True},
    "remedy": {"type": "str", "default": "install it, or name another"},
    "search": {"type": "str", "default": ""},
}
ARGUMENTS = {
    "state_folder": {"type": "path", "required": True},
    "listeners": {"type": "list", "elements": "dict", "default": [], "options": LISTENER},
    "folders": {"type": "list", "elements": "dict", "default": [], "options": PATH},
    "unix_sockets": {"type": "list", "elements": "dict", "default": [], "options": PATH},
    "binaries": {"type": "list", "elements": "dict", "default": [], "options": BINARY},
    "watched_files": {"type": "int", "default": 0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    problems = check(module.params)
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems)
    module.exit_json(changed=False, problems=[])


def check(params: dict[str, Any]) -> list[str]:
    """All problems of all checks."""
    listeners = [preflight.Listener(**entry) for entry in params["listeners"]]
    return [
        *preflight.check_binaries(settings(params["binaries"])),
        *preflight.check_folders(settings(params["folders"])),
        *preflight.check_unix_sockets(settings(params["unix_sockets"])),
        *preflight.check_listeners(listeners, params["state_folder"]),
        *preflight.check_watches(params.get("watched_files", 0), params["state_folder"]),
    ]


def settings(entries: list[dict[str, Any]]) -> list[preflight.Setting]:
    return [
        preflight.Setting(entry["path"], entry["variable"], entry.get("remedy", ""), entry.get("search", ""))
        for entry in entries
    ]


if __name__ == "__main__":
    main()
