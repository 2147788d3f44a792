#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_binary_info
short_description: Tell what a k3s binary was built for
version_added: 0.1.0
description:
  - Reads a file's SHA-256 and the architecture in its header. It is not run.
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
    description: The file.
    type: path
    required: true
seealso:
  - module: sidecar.mesh.k3s_node_info
"""

EXAMPLES = r"""
- name: Look at the binary
  sidecar.mesh.k3s_binary_info:
    path: ~/downloads/k3s-arm64
  register: binary
"""

RETURN = r"""
path:
  description: Path of the file.
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
"""

import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_binary import architecture_of
from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_facts import digest


def main() -> None:
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    path = Path(module.params["path"])
    exists = path.is_file() and os.access(path, os.R_OK)
    module.exit_json(
        changed=False,
        path=module.params["path"],
        architecture=architecture_of(path) if exists else "",
        sha256=digest(path, "sha256") if exists else "",
    )


if __name__ == "__main__":
    main()
