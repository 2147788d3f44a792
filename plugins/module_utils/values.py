# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain values: copies without Ansible's string subclasses, durations, and JSON merge patches."""

from __future__ import annotations

import math
import re
from typing import Any

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Source: protobuf docs, "Duration"; about 10,000 years.
_LONGEST_SECONDS = 315_576_000_000
_SIZES = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]{1,12})(Ki|Mi|Gi|Ti|k|M|G|T|)")
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")


def plain(value: Any) -> Any:
    """Deep copy made of dict, list, str, int, float, bool and None only.

    Inventory values are subclasses of these (tagged strings), which YAML emitters refuse.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "".join(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value]


def seconds(value: Any) -> float:
    """Seconds of a duration: a number (seconds) or text such as ``250ms``, ``2s``, ``1m``, ``1h``.

    Raises ValueError for anything else.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A larger whole number is none that float() takes.
        number = float(value) if abs(value) <= _LONGEST_SECONDS else math.nan
    else:
        match = _DURATION.fullmatch(value) if isinstance(value, str) else None
        number = float(match[1]) * _UNITS[match[2]] if match else math.nan
    if not 0 <= number <= _LONGEST_SECONDS:
        raise ValueError(value)
    return number


def duration(value: Any) -> str:
    """The same duration as Envoy writes it: seconds with up to nine decimals and an ``s``, such as ``0.25s``."""
    text = f"{seconds(value):.9f}".rstrip("0").rstrip(".")
    return f"{text}s"


def byte_count(value: Any) -> int:
    """Bytes of a size: a whole number, or text such as ``256Mi``. Raises ValueError for anything else.

    Source: Kubernetes docs, "Resource Management for Pods and Containers", memory resource units.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        match = _SIZE.fullmatch(str(value))
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(value)
    return int(match[1]) * _SIZES[match[2]]


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` with a JSON merge patch applied (RFC 7396): dicts merge, null removes, all else replaces.

    Neither argument is changed; the result shares unchanged parts with ``target``.
    """
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def present(values: dict[str, Any]) -> dict[str, Any]:
    """The entries whose value is not None and not an empty container."""
    return {key: value for key, value in values.items() if value is not None and value != {} and value != []}
