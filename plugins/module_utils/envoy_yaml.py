# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as Envoy reads it: one canonical text for the same data, and no string it would take for something else."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

try:
    import yaml
except ImportError:  # the modules tell the user
    HAS_YAML = False
    YAMLError: Any = ValueError
    _BASE: Any = object
else:
    HAS_YAML = True
    YAMLError = yaml.YAMLError
    _BASE = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

_UNICODE_LINE_ENDS = re.compile("[\u2028\u2029]")
_NUMBER = re.compile(
    r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|0x[0-9a-f.]+(?:p[-+]?[0-9]+)?|inf(?:inity)?|nan)$",
    re.IGNORECASE,
)


class _EnvoyDumper(_BASE):  # type: ignore[misc]
    """Quotes text that yaml-cpp, Envoy's parser, reads as a boolean or a number although PyYAML does not."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _text(dumper: Any, data: str) -> Any:
    """Text of several lines as a block, the rest as it comes; line ends of Unicode, no line ends to Envoy, escaped."""
    style = '"' if _UNICODE_LINE_ENDS.search(data) else ("|" if "\n" in data else None)
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


if HAS_YAML:
    _EnvoyDumper.add_representer(str, _text)
    _EnvoyDumper.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"[yYnN]$"), list("yYnN"))
    _EnvoyDumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789iInN"))


def dump(data: Any) -> str:
    """Block-style YAML with sorted keys."""
    text: str = yaml.dump(data, Dumper=_EnvoyDumper, default_flow_style=False, allow_unicode=True, width=4096)
    return text


def load(text: str) -> Any:
    """Data of YAML or JSON text."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def content_hash(data: Any) -> str:
    """Short hash of data, the same for the same data whatever the order of its keys."""
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
