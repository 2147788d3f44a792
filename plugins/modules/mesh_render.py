#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mesh_render
short_description: Write the Envoy configurations of a mesh into a folder
version_added: 0.1.0
description:
  - Builds the configuration of every Envoy of a mesh and writes it into a folder, without anything that runs a mesh.
    To review what a change does, to keep it in a repository, or for whatever runs Envoy at your place.
  - The files are those of filter P(sidecar.mesh.mesh_files#filter), at C(proxies/<proxy>/<file>) below O(path). The
    module builds them itself, because Ansible takes longer to pass thousands of files to a module than to make them.
  - On engine V(kubernetes) the objects of filter P(sidecar.mesh.mesh_manifests#filter) and the policies of
    P(sidecar.mesh.mesh_policies#filter) are at C(manifests/<workload>/<kind>.yaml), with kustomizations; not where a
    service has no image.
  - Each file is replaced by an atomic rename, and only if it differs.
  - Files that an earlier run made, and that the mesh has no more, are removed. The file C(.made-by-sidecar-mesh) in the
    folder names what was made; all other files stay.
  - A wrong inventory changes nothing.
options:
  path:
    description: The folder. It is made if it does not exist.
    type: path
    required: true
  services:
    description: The services, as in the inventory's C(mesh_services).
    type: raw
    default: []
  front_proxies:
    description: The front proxies, as in the inventory's C(mesh_front_proxies).
    type: raw
    default: []
  settings:
    description: Settings of the mesh, as the options of filter P(sidecar.mesh.mesh_model#filter).
    type: dict
    default: {}
author:
  - sidecar.mesh contributors (@sidecar-mesh)
requirements:
  - PyYAML
attributes:
  check_mode:
    description: Reports what would change, without a change.
    support: full
  diff_mode:
    description: Shows every file that changes.
    support: full
seealso:
  - plugin: sidecar.mesh.mesh_files
    plugin_type: filter
  - module: sidecar.mesh.envoy_validate
"""

EXAMPLES = r"""
- name: Write the configurations of two Envoys
  sidecar.mesh.mesh_render:
    path: /srv/rendered
    services:
      - {name: shop, port: 8080, upstreams: [{service: stock, port: 9001}]}
      - {name: stock, port: 8080}

- name: Write those of an inventory
  sidecar.mesh.mesh_render:
    path: /srv/rendered
    services: "{{ mesh_services }}"
    front_proxies: "{{ mesh_front_proxies }}"
    settings:
      engine: kubernetes
      namespace: shop
"""

RETURN = r"""
written:
  description: Paths below O(path) of files that are new or changed.
  type: list
  elements: str
  returned: success
  sample: [proxies/shop/cds.yaml, proxies/shop/rds.egress_9001.yaml]
removed:
  description: Paths below O(path) of files that are gone.
  type: list
  elements: str
  returned: success
  sample: [proxies/stock/eds.shop.yaml]
unchanged:
  description: How many files are as they were.
  type: int
  returned: success
  sample: 9
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import HAS_YAML
from ansible_collections.sidecar.mesh.plugins.module_utils.made_files import Changes, Files, bring, changes
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.render import rendered


def diffs(folder: Path, wanted: Files, change: Changes) -> list[dict[str, str]]:
    """One entry a changed file, whole files before and after."""
    before = {**change.written, **change.removed}
    return [
        {
            "before_header": str(folder / path),
            "after_header": str(folder / path),
            "before": before[path] or "",
            "after": wanted.get(path, ""),
        }
        for path in sorted(before)
    ]


def run(module: AnsibleModule, wanted: Files) -> dict[str, Any]:
    folder = Path(module.params["path"])
    change = changes(folder, wanted)
    if not module.check_mode:
        bring(folder, wanted, change)
    return {
        "changed": bool(change.written or change.removed or change.made != sorted(wanted)),
        "written": sorted(change.written),
        "removed": sorted(change.removed),
        "unchanged": len(wanted) - len(change.written),
        **({"diff": diffs(folder, wanted, change)} if module._diff else {}),
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "services": {"type": "raw", "default": []},
            "front_proxies": {"type": "raw", "default": []},
            "settings": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
        # The host's log has no use for a whole inventory.
        no_log=True,
    )
    if not HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    params = module.params
    try:
        result = run(module, rendered(build_model(params["services"], params["front_proxies"], params["settings"])))
    except ModelError as exc:
        module.fail_json(msg=str(exc))
    except OSError as exc:
        module.fail_json(msg=f"path: {exc.filename or params['path']}: {exc.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
