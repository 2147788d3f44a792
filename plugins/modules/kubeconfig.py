#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kubeconfig
short_description: Put a cluster's context into a kubeconfig, or take it out
version_added: 0.1.0
description:
  - Merges the first cluster and user of a kubeconfig such as k3s' own into a file, under one name.
  - Contexts, clusters and users of others are left as they are. The current context is set only where there is none.
  - The file is replaced at once, and only its owner can read it.
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    support: full
    description: Tells what would change.
  diff_mode:
    support: full
    description: Shows contexts and addresses, and neither certificates nor keys.
options:
  path:
    description: The file.
    type: path
    default: ~/.kube/config
  context:
    description: Name of the context, and of its cluster and user.
    type: str
    required: true
  server:
    description: URL at which the API server is reached.
    type: str
    required: true
  content:
    description: The kubeconfig to take cluster and user from. Required with O(state=present).
    type: str
  state:
    description:
      - With V(absent) the context is removed, if its cluster is at O(server); a file with nothing left is removed, too.
    type: str
    choices: [present, absent]
    default: present
requirements:
  - PyYAML
seealso:
  - module: kubernetes.core.k8s_cluster_info
"""

EXAMPLES = r"""
- name: Read k3s' kubeconfig
  ansible.builtin.slurp:
    src: /etc/rancher/k3s/k3s.yaml
  register: own
  no_log: true

- name: Put the cluster into the controller's
  sidecar.mesh.kubeconfig:
    context: homelab
    server: https://192.0.2.11:6443
    content: "{{ own.content | b64decode }}"
  delegate_to: localhost
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
"""

import os
import tempfile
from pathlib import Path
from typing import Any

try:
    import yaml

    HAS_YAML = True
except ImportError:
    HAS_YAML = False

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import kubeconfig


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "~/.kube/config"},
            "context": {"type": "str", "required": True},
            "server": {"type": "str", "required": True},
            "content": {"type": "str", "no_log": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["content"])],
        supports_check_mode=True,
    )
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    path = Path(module.params["path"])
    try:
        before = read(path)
        after = wanted(before, module.params)
    except (kubeconfig.KubeconfigError, yaml.YAMLError) as exc:
        module.fail_json(msg=str(exc))
    changed = before != after or (path.exists() and path.stat().st_mode & 0o077 != 0)
    if changed and not module.check_mode:
        write(path, after, given=module.params)
    texts = {"before": kubeconfig.described(before), "after": kubeconfig.described(after)}
    headers = {"before_header": str(path), "after_header": str(path)}
    module.exit_json(changed=changed, path=str(path), diff={**texts, **headers} if changed else {})


def read(path: Path) -> Any:
    if not path.exists():
        return None
    return kubeconfig.checked(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def wanted(before: Any, given: dict[str, Any]) -> Any:
    if given["state"] == "absent":
        return kubeconfig.removed(before, given["context"], given["server"])
    return kubeconfig.merged(before, given["context"], given["server"], yaml.safe_load(given["content"]))


def write(path: Path, data: Any, given: dict[str, Any]) -> None:
    if given["state"] == "absent" and kubeconfig.is_empty(data):
        path.unlink(missing_ok=True)
        return
    if not path.parent.exists():
        path.parent.mkdir(parents=True, mode=0o700)
    target = path.resolve()  # the link of somebody who keeps the file elsewhere stays one
    # mkstemp's files are their owner's alone.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".kubeconfig-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        yaml.safe_dump(data, file, sort_keys=False)
    Path(name).replace(target)


if __name__ == "__main__":
    main()
