#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: envoy_validate
short_description: Have the real Envoy judge the configs of many proxies at once
version_added: 0.1.0
description:
  - Joins the config folder of each proxy into one static config and has C(envoy --mode validate) judge it,
    many in parallel. On its own, C(envoy --mode validate) does not look into the files of file-based LDS, CDS, RDS, EDS
    and SDS, so broken ones pass.
  - Also fails on what Envoy only warns about, such as deprecated fields, and on what it finds out only when it serves,
    such as missing files, resources of another name than is asked for, and references to clusters that do not exist.
  - Fails with one message that has a line for each problem of each config.
    A line names the config, the file, and the place in the file.
options:
  configs:
    description: Configs as text.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the config in messages and results.
        type: str
        required: true
      files:
        description:
          - Text of every file of the proxy's config folder by its name.
          - C(bootstrap.yaml) is required. The files it refers to directly or indirectly must be here as well;
            of their paths only the last part matters.
          - An SDS file of another folder than that of C(lds.yaml) and C(cds.yaml), such as one from a Secret, may be
            missing here. It must then exist where the module runs, as certificate files must, and is not validated.
        type: dict
        required: true
      args:
        description:
          - Arguments Envoy will run with. Those about logging, hot restart and the config file are ignored.
          - Where neither they nor the bootstrap name the node and its cluster, Envoy gets names that say nothing.
        type: list
        elements: str
        default: []
  folders:
    description: Config folders on the host the module runs on; their paths are their names in messages and results.
    type: list
    elements: path
    default: []
  envoy:
    description: Envoy's binary, as a path or a name on E(PATH) or beside the Python that runs the module.
    type: path
    default: envoy
  optional:
    description: With V(true), only warns where there is no Envoy, and validates nothing.
    type: bool
    default: false
  stand_ins:
    description:
      - A certificate and a key to read in place of every certificate and key that the configs name, because those are
        in pods, and not on this machine.
    type: dict
    suboptions:
      certificate:
        description: The certificate's path.
        type: path
        required: true
      key:
        description: The key's path.
        type: path
        required: true
  expected_version:
    description:
      - Version of the Envoy that will run the configs, such as V(1.40.0), V(v1.40) or an image's tag.
      - The module warns when another version validates them.
    type: str
  cache:
    description:
      - Folder in which accepted configs are remembered by a hash, so that they are not validated again.
        The hash covers the config, its arguments, the files it refers to and Envoy's version.
      - In check mode it is read, but not written.
    type: path
  parallel:
    description: How many Envoys run at the same time. The default is the number of CPUs.
    type: int
  timeout:
    description: Seconds after which one Envoy is stopped and its config counts as refused.
    type: int
    default: 60
author:
  - sidecar.mesh contributors (@sidecar-mesh)
requirements:
  - Envoy
  - PyYAML
attributes:
  check_mode:
    description: Validates as always; the module changes nothing.
    support: full
  diff_mode:
    description: There is nothing to show, as the module changes nothing.
    support: none
notes:
  - Fields have to be spelled as in Envoy's documentation, in snake_case.
seealso:
  - module: sidecar.mesh.local_publish
  - plugin: sidecar.mesh.mesh_files
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Refuse a mesh that Envoy would refuse
  sidecar.mesh.envoy_validate:
    configs: "{{ _mesh_files | json_query('[].{name: name, files: files}') }}"
    cache: "{{ ansible_facts.user_dir }}/.cache/sidecar-mesh/validated"
    expected_version: 1.40.0
  vars:
    _mesh_files: "{{ model | sidecar.mesh.mesh_files }}"

- name: Validate configs that lie on the host, with a binary of our own
  sidecar.mesh.envoy_validate:
    folders:
      - /etc/envoy
      - /srv/envoy-next
    envoy: /opt/envoy/bin/envoy

- name: Validate one static config written in the playbook
  sidecar.mesh.envoy_validate:
    configs:
      - name: edge
        files:
          bootstrap.yaml: |
            admin:
              address:
                socket_address: {address: 127.0.0.1, port_value: 9901}
        args: [--service-cluster, edge, --service-node, edge-1]
"""

RETURN = r"""
validated:
  description: Names of the configs that Envoy accepted now.
  type: list
  elements: str
  returned: always
  sample: [front-1, service-a-1]
unchanged:
  description: Names of the configs that were accepted before and have not changed since.
  type: list
  elements: str
  returned: always
  sample: [service-b-1]
refused:
  description: Names of the configs with problems.
  type: list
  elements: str
  returned: always
  sample: []
problems:
  description: One line for each problem; the error message has them too.
  type: list
  elements: str
  returned: always
  sample:
    - "service-a-1: lds.yaml: resources[1] (egress_8788): unknown field 'adress' in envoy.config.listener.v3.Listener"
version:
  description: Version of the Envoy that validated.
  type: str
  returned: always
  sample: 1.40.0
"""

import os
from collections import Counter
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import validate

OPTIONS: dict[str, Any] = {
    "configs": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "files": {"type": "dict", "required": True, "no_log": True},
            "args": {"type": "list", "elements": "str", "default": []},
        },
    },
    "folders": {"type": "list", "elements": "path", "default": []},
    "envoy": {"type": "path", "default": "envoy"},
    "optional": {"type": "bool", "default": False},
    "stand_ins": {
        "type": "dict",
        "options": {
            "certificate": {"type": "path", "required": True},
            "key": {"type": "path", "required": True, "no_log": False},
        },
    },
    "expected_version": {"type": "str"},
    "cache": {"type": "path"},
    "parallel": {"type": "int"},
    "timeout": {"type": "int", "default": validate.TIMEOUT},
}


def configs_of(module: AnsibleModule) -> list[validate.Config]:
    """What is to be validated; fails when a name would not say which config is meant."""
    configs = [validate.Config(**config) for config in module.params["configs"]]
    configs += [validate.read_folder(folder) for folder in module.params["folders"]]
    names = [config.name for config in configs]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        module.fail_json(msg=f"configs and folders: each name may be there once only: {', '.join(repeated)}")
    stand_ins = module.params["stand_ins"]
    return [validate.with_stand_ins(config, **stand_ins) for config in configs] if stand_ins else configs


def warn(module: AnsibleModule, report: validate.Report) -> None:
    expected = module.params["expected_version"]
    if expected and not validate.same_version(report.version, expected):
        module.warn(
            f"Envoy {report.version} validated the configs, but {expected} will run them and may refuse what passed. "
            "Set envoy to a binary of that version"
        )
    for text in report.unchecked:
        module.warn(text)


def main() -> None:
    # Without no_log the host's log would get all files, keys included: what it has of nested options is not masked.
    module = AnsibleModule(OPTIONS, supports_check_mode=True, no_log=True)
    if not validate.HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    configs = configs_of(module)
    cache = validate.Cache(module.params["cache"], keep=not module.check_mode)
    parallel = module.params["parallel"] or len(os.sched_getaffinity(0))
    try:
        with validate.Envoy.found(module.params["envoy"], module.params["timeout"], module.tmpdir) as envoy:
            report = validate.validate(configs, envoy, cache, parallel)
    except validate.EnvoyMissingError as exc:
        if not module.params["optional"]:
            module.fail_json(msg=str(exc))
        module.warn(f"The configurations are not validated before anything is touched. {exc}")
        module.exit_json(changed=False, validated=[], unchanged=[], refused=[], problems=[], version="")
    except validate.EnvoyError as exc:
        module.fail_json(msg=str(exc))
    warn(module, report)
    result = {
        "validated": report.validated,
        "unchanged": report.unchanged,
        "refused": report.refused,
        "problems": report.problems,
        "version": report.version,
    }
    if report.refused:
        head = f"Envoy {report.version} refuses {len(report.refused)} of {len(configs)} configs:"
        module.fail_json(msg="\n".join([head, *report.problems]), **result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
