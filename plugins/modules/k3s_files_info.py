#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_files_info
short_description: Tell what files nodes are to get
version_added: 0.1.0
description:
  - Reads the SHA-256 of a k3s binary and the architecture in its header. It is not run.
  - Tells archives of images by size and time. Links are followed.
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
  path:
    description: The binary, if there is one.
    type: path
    default: ""
  archives:
    description: Paths of archives of images.
    type: list
    elements: str
    default: []
seealso:
  - module: sidecar.mesh.k3s_node_info
"""

EXAMPLES = r"""
- name: Look at the binary
  sidecar.mesh.k3s_files_info:
    path: ~/downloads/k3s-arm64
  register: files
"""

RETURN = r"""
path:
  description: Path of the binary.
  returned: always
  type: str
architecture:
  description: Architecture as C(uname -m) names it, V(any) of a script, or nothing if the file is no program.
  returned: always
  type: str
  sample: aarch64
sha256:
  description: Its SHA-256, or nothing if there is no such file that can be read.
  returned: always
  type: str
archives:
  description: Size in bytes and time of change in seconds since 1970, by path; nothing where there is no such file.
  returned: always
  type: dict
  sample: {"/srv/dns.tar": "77594624 1795951136"}
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_binary import architecture_of
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_facts import digest, size_and_time


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": ""},
            "archives": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    exists = path.is_file() and os.access(path, os.R_OK)
    module.exit_json(
        changed=False,
        path=module.params["path"],
        architecture=architecture_of(path) if exists else "",
        sha256=digest(path, "sha256") if exists else "",
        archives={name: size_and_time(Path(name)) for name in module.params["archives"]},
    )


if __name__ == "__main__":
    main()
