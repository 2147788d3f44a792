#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_images
short_description: Ask registries whether they have images
version_added: 0.1.0
description:
  - Asks for the manifest of each image, without a builder and without pulling anything.
  - Logins are those of podman, buildah and docker, with their credential helpers.
  - Fails if a registry does not answer, or refuses the login.
options:
  references:
    description: References with registry and tag.
    type: list
    elements: str
    required: true
  auth_file:
    description:
      - File with logins, as C(podman login) and C(docker login) write it. By default it is looked for where these
        keep it.
    type: path
  insecure:
    description: Whether certificates are not checked, and registries without TLS are asked in the clear.
    type: bool
    default: false
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
seealso:
  - module: sidecar.mesh.image_references
"""

EXAMPLES = r"""
- name: Ask for an image
  sidecar.mesh.registry_images:
    references: [registry.example.com/shop/shop:1]
  register: asked

- name: Show it
  ansible.builtin.debug:
    var: asked.present
"""

RETURN = r"""
present:
  description: The references that are there.
  type: list
  elements: str
  returned: success
  sample: ['registry.example.com/shop/shop:1']
unknown:
  description: For references of which the registry did not say, why.
  type: dict
  returned: success
  sample: {}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils.registry import RegistryError, UnusableError, has


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "references": {"type": "list", "elements": "str", "required": True},
            "auth_file": {"type": "path"},
            "insecure": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    present, unknown = [], {}
    for reference in module.params["references"]:
        try:
            if has(reference, module.params["auth_file"] or "", insecure=module.params["insecure"]):
                present.append(reference)
        except UnusableError as exc:
            module.fail_json(msg=str(exc))
        except RegistryError as exc:
            unknown[reference] = str(exc)
    module.exit_json(changed=False, present=present, unknown=unknown)


if __name__ == "__main__":
    main()
