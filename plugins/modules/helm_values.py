#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: helm_values
short_description: Find values that a Helm chart does not know
version_added: 0.1.0
description:
  - Helm lets keys pass that a chart does not know, so a key that is misspelt has no effect. This module finds them.
  - A chart's keys are those of its C(values.yaml), of its C(values.schema.json), and those that its templates read.
    Below what a chart hands to Kubernetes as it is, such as node selectors and annotations, anything is allowed.
  - Changes nothing.
options:
  chart:
    description: A chart's C(.tgz), or its folder.
    type: path
    required: true
  values:
    description: The values to look at.
    type: dict
    required: true
  unchecked:
    description:
      - Paths that are not looked at, such as C(operator.extra), with all that stands below, for what this module does
        not find in the chart.
    type: list
    elements: str
    default: []
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    description: Reads in check mode too.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
requirements:
  - PyYAML
seealso:
  - module: kubernetes.core.helm
"""

EXAMPLES = r"""
- name: Look at values before they are used
  sidecar.mesh.helm_values:
    chart: cilium-1.20.0.tgz
    values:
      operator:
        replica: 1
  register: checked

- name: Refuse what has no effect
  ansible.builtin.assert:
    that: checked.unknown | length == 0
    fail_msg: "{{ checked.unknown | map(attribute='path') | join(', ') }}"
"""

RETURN = r"""
name:
  description: Name of the chart.
  type: str
  returned: success
  sample: cilium
version:
  description: Its version.
  type: str
  returned: success
  sample: 1.20.0
unknown:
  description: What it does not know.
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: Where it stands.
      type: str
      sample: operator.replica
    nearest:
      description: What may be meant instead, or empty.
      type: str
      sample: operator.replicas
"""

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.sidecar.mesh.plugins.module_utils import chart_files
from ansible_collections.sidecar.mesh.plugins.module_utils.chart_keys import known_keys, unknown_keys


def main() -> None:
    module = AnsibleModule(
        {
            "chart": {"type": "path", "required": True},
            "values": {"type": "dict", "required": True},
            "unchecked": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    if not chart_files.HAS_YAML:
        module.fail_json(msg=missing_required_lib("PyYAML"))
    try:
        chart = chart_files.read_chart(module.params["chart"])
    except chart_files.ChartError as exc:
        module.fail_json(msg=str(exc))
    known = known_keys(chart.values, chart.schema, chart.templates, [*chart.parts, "global"])
    found = unknown_keys(module.params["values"], known)
    module.exit_json(
        changed=False,
        name=chart.metadata.get("name", ""),
        version=str(chart.metadata.get("version", "")),
        unknown=[
            {"path": path, "nearest": nearest}
            for path, nearest in found
            if not any(f"{path}.".startswith(f"{free}.") for free in module.params["unchecked"])
        ],
    )


if __name__ == "__main__":
    main()
