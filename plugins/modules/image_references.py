#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: image_references
short_description: Tell the references of images before they are built
version_added: 0.1.0
description:
  - An image's tag is a digest of what it is built from - the files of its context as C(.dockerignore) leaves them, the
    Dockerfile, build args, target and platform. So the reference is known without a builder, and is another one
    exactly when there is something to build.
  - What a base image is made of is not part of the digest, only its name. To follow one, name it with its digest in a
    build arg.
  - Builds of the same context with the same settings are one image.
options:
  builds:
    description: What to build.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name by which RV(references) are looked up, such as that of a service.
        type: str
        required: true
      context:
        description: Folder with the sources. A relative path starts in O(folder).
        type: str
        required: true
      dockerfile:
        description: Path of the Dockerfile, relative to the context.
        type: str
        default: Dockerfile
      args:
        description: Build args that the Dockerfile declares.
        type: dict
        default: {}
      target:
        description: The stage to build; the last one by default.
        type: str
        default: ''
      platform:
        description: Platform to build for, such as V(linux/arm64); that of the builder by default.
        type: str
        default: ''
      repository:
        description: Name of the image, without registry and tag; that of the context's folder by default.
        type: str
        default: ''
  registry:
    description:
      - Where references begin, such as V(registry.example.com/shop). Without one that is C(localhost), for images
        that no registry has.
    type: str
    default: ''
  args:
    description: Build args for every Dockerfile that declares them. Those of a build go first.
    type: dict
    default: {}
  folder:
    description: Folder in which relative contexts start.
    type: path
    default: .
  applications:
    description: Folder that C($(APPLICATIONS\)) stands for in a context.
    type: path
    default: .
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
  - module: sidecar.mesh.registry_images
"""

EXAMPLES = r"""
- name: Tell the references of two services
  sidecar.mesh.image_references:
    registry: registry.example.com/shop
    builds:
      - {name: shop, context: /srv/shop}
      - {name: stock, context: /srv/stock, args: {BASE_IMAGE: docker.io/library/python:3.13-slim}}
  register: made

- name: Show that of the shop
  ansible.builtin.debug:
    var: made.references.shop
"""

RETURN = r"""
references:
  description: The reference of each build's image, by the build's name.
  type: dict
  returned: success
  sample: {shop: 'registry.example.com/shop/shop:3c1f6e2a9b07d854'}
images:
  description: The images, each once.
  type: list
  elements: dict
  returned: success
  contains:
    reference:
      description: The image's reference.
      type: str
    repository:
      description: The reference without its tag.
      type: str
    tag:
      description: The tag.
      type: str
    names:
      description: The builds that share the image.
      type: list
      elements: str
    context:
      description: Absolute path of the folder with the sources.
      type: str
    dockerfile:
      description: Absolute path of the Dockerfile.
      type: str
    ignore_file:
      description: Absolute path of the file that says what is left out; empty if there is none.
      type: str
    args:
      description: The build args.
      type: dict
    target:
      description: The stage to build; empty for the last one.
      type: str
    platform:
      description: Platform to build for; empty for the builder's own.
      type: str
builders:
  description: Paths of the builders that are on this machine, of C(podman), C(buildah) and C(docker).
  type: dict
  returned: success
  sample: {podman: /usr/bin/podman}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils.images import BuildError, images, references

BUILD = {
    "name": {"type": "str", "required": True},
    "context": {"type": "str", "required": True},
    "dockerfile": {"type": "str", "default": "Dockerfile"},
    "args": {"type": "dict", "default": {}},
    "target": {"type": "str", "default": ""},
    "platform": {"type": "str", "default": ""},
    "repository": {"type": "str", "default": ""},
}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "builds": {"type": "list", "elements": "dict", "required": True, "options": BUILD},
            "registry": {"type": "str", "default": ""},
            "args": {"type": "dict", "default": {}},
            "folder": {"type": "path", "default": "."},
            "applications": {"type": "path", "default": "."},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        made = images(given["builds"], given["registry"], given["args"], given["folder"], given["applications"])
    except BuildError as exc:
        module.fail_json(msg=str(exc))
    except (OSError, UnicodeDecodeError) as exc:
        module.fail_json(msg=f"The sources of an image cannot be read: {exc}")
    found = {name: module.get_bin_path(name) for name in ("podman", "buildah", "docker")}
    module.exit_json(
        changed=False,
        references=references(made),
        images=made,
        builders={name: path for name, path in found.items() if path},
    )


if __name__ == "__main__":
    main()
