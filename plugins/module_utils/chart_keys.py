# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that a Helm chart's values may have, and which of those given it does not know.

Helm lets unknown keys pass, so that a key that is misspelt has no effect. What a chart knows is in three places, and
none has all: values.yaml, values.schema.json, and the templates, which also read keys that have no default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Keys = dict[str, Any]
"""Known keys: name -> Keys of the dict it takes, or None where anything may stand below."""

_FREE = {
    "affinity",
    "annotations",
    "labels",
    "matchExpressions",
    "matchLabels",
    "nodeSelector",
    "podAnnotations",
    "podLabels",
    "resources",
    "strategy",
    "updateStrategy",
}
"""Keys whose dicts charts hand to Kubernetes as they are, though they may have defaults."""

_PATH = r"\$?\.Values((?:\.[A-Za-z_]\w*)+)"
_READ = re.compile(_PATH)
_ASKED = re.compile(r'hasKey\s+\$?\.Values((?:\.[A-Za-z_]\w*)*)\s+"(\w+)"')
_ALIAS = re.compile(rf"(\$\w+)\s*:?=[^}}\n]*?{_PATH}(?![.\w])")
_DUMPED = (
    re.compile(rf"(?:toYaml|toJson|toPrettyJson)\s+\(?\s*{_PATH}(?![.\w])"),
    re.compile(rf"{_PATH}\s*\|\s*(?:toYaml|toJson|toPrettyJson)"),
    re.compile(rf"range\s+\$\w+,\s*\$\w+\s*:=\s*[^}}]*?{_PATH}(?![.\w])"),
    re.compile(
        rf"(?:with|range)\s+(?:\$\w+\s*:=\s*)?{_PATH}\s*-?}}}}\s*(?:[^{{]*){{{{-?\s*(?:toYaml|toJson)\s+\.(?!\w)"
    ),
    re.compile(rf"with\s+{_PATH}\s*-?}}}}\s*(?:[^{{]*){{{{-?\s*range\s+\$\w+,\s*\$\w+\s*:=\s*\.\s"),
)


def known_keys(values: Any, schema: Any, templates: Iterable[str], extra: Iterable[str] = ()) -> Keys:
    """Keys of a chart.

    ``values``: its values.yaml, parsed; ``schema``: its values.schema.json, parsed, or None; ``templates``: texts of
    its templates; ``extra``: top-level keys that take anything, such as the names of charts it depends on.
    """
    texts = list(templates)
    found = _of_values(values)
    _add_schema(found, schema or {})
    for path in dict.fromkeys([*_paths(_READ, texts), *_paths(_ASKED, texts), *_paths_of_variables(texts)]):
        _add(found, path)
    for pattern in _DUMPED:
        for path in _paths(pattern, texts):
            _open(found, path)
    found.update(dict.fromkeys(extra))
    return found


def unknown_keys(given: Any, known: Keys) -> list[tuple[str, str]]:
    """Paths that a chart does not know, each with the most likely path instead, or empty text."""
    everywhere = sorted(_all(known))
    return [(".".join(path), _nearest(path, siblings, everywhere)) for path, siblings in _unknown(given, known, ())]


def _of_values(values: Any) -> Keys:
    if not isinstance(values, dict):
        return {}
    return {
        str(key): _of_values(item) if isinstance(item, dict) and item and key not in _FREE else None
        for key, item in values.items()
    }


def _add_schema(found: Keys, schema: dict[str, Any]) -> None:
    for key, field in (schema.get("properties") or {}).items():
        inner = field.get("properties") if isinstance(field, dict) else None
        if key not in found:
            found[key] = {} if inner and key not in _FREE else None
        if found[key] is not None and inner:
            _add_schema(found[key], field)


def _paths(pattern: re.Pattern[str], texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    for text in texts:
        for match in pattern.finditer(text):
            yield tuple(key for key in [*match[1].split("."), *match.groups()[1:]] if key)


def _paths_of_variables(texts: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """What is read by way of a variable: ``$lb := .Values.socketLB``, then ``$lb.tracing``."""
    for text in texts:
        for name, path in {match[1]: match[2] for match in _ALIAS.finditer(text)}.items():
            start = tuple(path.strip(".").split("."))
            variable = re.escape(name)
            for match in re.finditer(rf'{variable}((?:\.[A-Za-z_]\w*)+)|hasKey\s+{variable}\s+"(\w+)"', text):
                yield (*start, *(match[1].strip(".").split(".") if match[1] else [match[2]]))


def _add(found: Keys, path: Sequence[str]) -> None:
    """A path that is read somewhere. Below what takes anything there is nothing to add."""
    for key in path[:-1]:
        inner = found.setdefault(key, {})
        if inner is None:
            return
        found = inner
    found.setdefault(path[-1], None)


def _open(found: Keys, path: Sequence[str]) -> None:
    for key in path[:-1]:
        inner = found.get(key)
        if inner is None:
            return
        found = inner
    found[path[-1]] = None


def _unknown(given: Any, known: Keys, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Keys]]:
    if not isinstance(given, dict):
        return
    for key, value in given.items():
        name = str(key)
        if name not in known:
            yield (*path, name), known
        elif known[name] is not None:
            yield from _unknown(value, known[name], (*path, name))


def _nearest(path: tuple[str, ...], siblings: Keys, everywhere: list[str]) -> str:
    """A key beside it that looks like it, else one elsewhere."""
    beside = difflib.get_close_matches(path[-1], list(siblings), n=1)
    if beside:
        return ".".join([*path[:-1], beside[0]])
    whole = ".".join(path)
    others = [other for other in everywhere if not whole.startswith(f"{other}.")]
    alike = difflib.get_close_matches(path[-1], {_last(other) for other in others}, n=1, cutoff=0.8)
    same = [other for other in others if _last(other) in alike]
    return next(iter(difflib.get_close_matches(whole, same, n=1, cutoff=0.4) or same), "")


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _all(known: Keys, path: str = "") -> Iterator[str]:
    for key, inner in known.items():
        yield f"{path}{key}"
        if inner:
            yield from _all(inner, f"{path}{key}.")
