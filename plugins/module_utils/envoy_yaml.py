# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML as Envoy reads it: one canonical text for the same data, and no string it would take for something else.

PyYAML decides how a scalar looks, once for each; the lines around scalars are written here. Its own way from data to
lines would take most of the time in which a mesh's files are made.
"""

from __future__ import annotations

import functools
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

# Text without need for quotes, unless a resolver takes it for something else, such as a number.
_UNREMARKABLE = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_./%,-]|:(?=[A-Za-z0-9_/]))*")
_LINE_ENDS = re.compile("[\n\r\x85\u2028\u2029]")
_LONGEST_KEY = 128
"""Bytes; libyaml writes longer ones in another way."""
_REMEMBERED = 2**16
"""Scalars: those of a few thousand proxies, whose files have most of them in common."""
_UNLIMITED = 2**31 - 1
_INDENTED = "\n  "
_WORDS = {None: "null", True: "true", False: "false"}


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
    if not data or not isinstance(data, (dict, list, tuple)):
        return _dumped(data)
    out: list[str] = []
    _write(data, "", "\n", out)
    return "".join([*out, "\n"])


def _write(data: Any, lead: str, line: str, out: list[str]) -> None:
    """A dict or a list with items. ``lead`` stands before its first line, ``line`` (line end, indent) before others."""
    deeper, append = f"{line}  ", out.append
    if not isinstance(data, dict):
        for item in data:
            kind = type(item)
            if kind is dict and item:
                _write(item, f"{lead}- ", deeper, out)
            else:
                _write_item(item, f"{lead}- ", line, out)
            lead = line
        return
    heads = _heads(tuple(data))
    if heads is None:
        append(lead + _by_pyyaml(data).replace(_INDENTED, line))
        return
    for key, head in heads:
        value = data[key]
        kind = type(value)
        # The kinds that make nearly all of a config, without a call for each.
        if kind is str:
            text = _scalar(value)
            append(f"{lead}{head} {text.replace(_INDENTED, deeper) if _INDENTED in text else text}")
        elif kind is dict and value:
            append(lead + head)
            _write(value, deeper, deeper, out)
        elif kind is list and value:
            # A list inside a dict is not indented.
            append(lead + head)
            _write(value, line, line, out)
        elif kind is int:
            append(f"{lead}{head} {value}")
        else:
            _write_other(value, lead + head, line, out)
        lead = line


def _write_item(item: Any, lead: str, line: str, out: list[str]) -> None:
    """An item of a list behind its dash."""
    text = _inline(item, line)
    if text:
        out.append(lead + text)
    else:
        _write(item, lead, f"{line}  ", out)


def _write_other(value: Any, head: str, line: str, out: list[str]) -> None:
    """A value behind a key, or below it."""
    text = _inline(value, line)
    if text:
        out.append(f"{head} {text}")
        return
    out.append(head)
    below = f"{line}  " if isinstance(value, dict) else line
    _write(value, below, below, out)


def _inline(value: Any, line: str) -> str:
    """A value that begins on the line of its key or dash; empty for a dict or list with items."""
    if isinstance(value, str):
        text = _scalar(value)
        return text.replace(_INDENTED, f"{line}  ") if "\n" in text else text
    if isinstance(value, (dict, list, tuple)):
        return "" if value else ("{}" if isinstance(value, dict) else "[]")
    if value is None or value is True or value is False:
        return _WORDS[value]
    return str(value) if isinstance(value, int) else _by_pyyaml(value)


@functools.lru_cache(_REMEMBERED)
def _heads(keys: tuple[Any, ...]) -> list[tuple[str, str]] | None:
    """Keys in their order, each with what its line begins with; None when one takes more than a colon behind it."""
    if any(not isinstance(key, str) or len(key.encode()) > _LONGEST_KEY or _LINE_ENDS.search(key) for key in keys):
        return None
    return [(key, f"{_scalar(key)}:") for key in sorted(keys)]


@functools.lru_cache(_REMEMBERED)
def _scalar(text: str) -> str:
    """Text as an item of a list at the left margin."""
    if _UNREMARKABLE.fullmatch(text):
        resolvers = _EnvoyDumper.yaml_implicit_resolvers.get(text[0], ())
        if not any(resolver.match(text) for _tag, resolver in resolvers):
            return text
    return _by_pyyaml(text)


def _by_pyyaml(data: Any) -> str:
    """What PyYAML writes behind the dash of a list at the left margin."""
    # Something follows it, for at the end of a document PyYAML writes empty lines in a way of their own.
    return _dumped([data, 0]).removeprefix("- ").rpartition("\n- 0\n")[0]


def _dumped(data: Any) -> str:
    text: str = yaml.dump(data, Dumper=_EnvoyDumper, default_flow_style=False, allow_unicode=True, width=_UNLIMITED)
    return text


def load(text: str) -> Any:
    """Data of YAML or JSON text."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


def content_hash(data: Any) -> str:
    """Short hash of plain data, the same for the same data whatever the order of its keys."""
    return text_hash(json.dumps(data, sort_keys=True))


def text_hash(text: str) -> str:
    """Short hash of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
