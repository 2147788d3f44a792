# SPDX-License-Identifier: GPL-3.0-or-later
"""Config folders of proxies, packed: of a thousand, the texts alone would take more than all that is made of them."""

import json
import zlib
from dataclasses import dataclass, field

from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Files
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash


@dataclass(frozen=True, slots=True)
class Folder:
    """Equal to one with the same content."""

    workload: str
    content: str
    """Hash of the files."""
    _packed: bytes = field(compare=False, repr=False)

    @classmethod
    def of(cls, workload: str, files: Files) -> "Folder":
        return cls(workload, content_hash(files), zlib.compress(json.dumps(files).encode(), 1))

    @property
    def files(self) -> Files:
        return dict(json.loads(zlib.decompress(self._packed)))


Folders = dict[str, Folder]
"""By proxy."""
