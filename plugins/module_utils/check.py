# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks inventory data against the schema and fills in its defaults.

Every function takes a value, its field and its path, appends one line of text to ``problems`` for each mistake, and
returns the value as the model holds it: plain types, durations as Envoy writes them, defaults filled in.
"""

from __future__ import annotations

import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import LARGEST, PATTERNS, Field, Fields
from ansible_collections.sidecar.mesh.plugins.module_utils.values import byte_count, duration, plain, seconds

Problems = list[str]


def check(value: Any, field: Field, path: str, problems: Problems) -> Any:
    """The value of one field in its normal form; what is wrong with it goes to ``problems``."""
    return _CHECKS[field["type"]](value, field, path, problems)


def check_fields(value: dict[Any, Any], fields: Fields, path: str, problems: Problems) -> dict[str, Any]:
    """A dict with known keys: unknown ones are reported, absent ones get their default (or None)."""
    # YAML 1.1 reads the key ``on`` as true.
    value = {"on" if key is True and "on" in fields else key: item for key, item in value.items()}
    problems.extend(
        f"{path}.{_shown(key)}: unknown key{_suggestion(key, fields)} (known: {', '.join(sorted(fields))})"
        for key in value
        if key not in fields
    )
    return {key: _entry(value.get(key), field, f"{path}.{key}", problems) for key, field in fields.items()}


def words(values: Iterable[Any]) -> str:
    """``a, b or c``"""
    texts = [str(value) for value in values]
    return " or ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)


def _entry(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if value is not None:
        return check(value, field, path, problems)
    if field.get("required"):
        problems.append(f"{path}: is missing; {_wanted(field)}")
        return None
    return check(field["default"], field, path, problems) if "default" in field else None


def _suggestion(key: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(key), list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _wanted(field: Field) -> str:
    """What a field takes, in words."""
    if "choices" in field:
        return f"give {words(field['choices'])}"
    if "pattern" in field:
        return f"give {PATTERNS[field['pattern']][1]}"
    words_of_type = _TYPE_WORDS[field["type"]]
    if "maximum" in field:
        unit = "s" if field["type"] == "duration" else ""
        return f"{words_of_type} from {field.get('minimum', 0)}{unit} to {field['maximum']}{unit}"
    if "minimum" in field:
        unit = "s" if field["type"] == "duration" else ""
        return f"{words_of_type} of at least {field['minimum']}{unit}"
    return words_of_type


def _wrong(value: Any, field: Field, path: str, problems: Problems, hint: str = "") -> None:
    problems.append(f"{path}: {plain_repr(value)} is not allowed; {_wanted(field)}{hint}")


def plain_repr(value: Any) -> str:
    """A value as a message shows it: short, and without Ansible's string subclasses."""
    try:
        text = repr(plain(value))
    except (TypeError, RecursionError):
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _shown(key: Any) -> str:
    """A key as a message shows it, on one line."""
    text = str(key)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 80 else f"{text[:77]}..."


def _check_text(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        hint = " (quote it: YAML reads it as a boolean)" if isinstance(value, bool) else ""
        _wrong(value, field, path, problems, hint)
        return None
    text = plain(value) if isinstance(value, str) else str(value)
    if "choices" in field and text not in field["choices"]:
        _wrong(value, field, path, problems, _suggestion(text, field["choices"]))
    if "pattern" in field and not _fits(field["pattern"], text):
        _wrong(value, field, path, problems)
    return text


def _fits(pattern: str, text: str) -> bool:
    if pattern == "ip":
        try:
            # A scope (fe80::1%eth0) means nothing on another machine.
            return "%" not in text and bool(ipaddress.ip_address(text))
        except ValueError:
            return False
    if pattern == "cidr":
        try:
            return "/" in text and bool(ipaddress.ip_network(text))
        except ValueError:
            return False
    return re.fullmatch(PATTERNS[pattern][0], text) is not None


def _check_int(value: Any, field: Field, path: str, problems: Problems) -> Any:
    # Templated numbers arrive as text.
    number = int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value) else value
    if isinstance(number, bool) or not isinstance(number, int):
        _wrong(value, field, path, problems)
        return None
    if not field.get("minimum", number) <= number <= field.get("maximum", number):
        _wrong(value, field, path, problems)
    elif number > LARGEST:
        _wrong(value, field, path, problems, f", and at most {LARGEST}")
    return int(number)


def _check_number(value: Any, field: Field, path: str, problems: Problems) -> Any:
    """A whole number stays one, so that it reads as it was written."""
    number = value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", value):
        number = float(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        _wrong(value, field, path, problems)
        return None
    if not field.get("minimum", number) <= number <= field.get("maximum", number):
        _wrong(value, field, path, problems)
    return int(number) if number == int(number) else float(number)


def _check_bytes(value: Any, field: Field, path: str, problems: Problems) -> Any:
    try:
        count = byte_count(value)
    except ValueError:
        _wrong(value, field, path, problems)
        return None
    if count < field.get("minimum", 0):
        _wrong(value, field, path, problems)
    return count


def _check_bool(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        _wrong(value, field, path, problems)
        return None
    return value


def _check_duration(value: Any, field: Field, path: str, problems: Problems) -> Any:
    try:
        length = seconds(value)
    except ValueError:
        _wrong(value, field, path, problems)
        return None
    if not field.get("minimum", 0) <= length <= field.get("maximum", length):
        _wrong(value, field, path, problems)
    return duration(value)


def _check_dict(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if "shorthand" in field and not isinstance(value, (dict, list)):
        value = {field["shorthand"]: value}
    if not isinstance(value, dict):
        _wrong(value, field, path, problems)
        return None
    return check_fields(value, field["fields"], path, problems)


def _check_toggle(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if isinstance(value, bool):
        return _check_dict({}, field, path, problems) if value else False
    return _check_dict(value, field, path, problems)


def _check_list(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if not isinstance(value, list):
        _wrong(value, field, path, problems)
        return []
    return [check(item, field["items"], f"{path}[{index}]", problems) for index, item in enumerate(value)]


def _check_map(value: Any, field: Field, path: str, problems: Problems) -> Any:
    if not isinstance(value, dict):
        _wrong(value, field, path, problems)
        return {}
    key_field = {"type": "str", "pattern": field["keys"]} if "keys" in field else {"type": "str"}
    for key in value:
        _check_text(key, key_field, f"{path} (key)", problems)
    return {str(key): check(item, field["items"], f"{path}.{_shown(key)}", problems) for key, item in value.items()}


def _check_any(value: Any, _field: Field, path: str, problems: Problems) -> Any:
    try:
        return plain(value)
    except (TypeError, RecursionError):
        problems.append(f"{path}: {plain_repr(value)} is not plain data; give text, numbers, booleans, lists and dicts")
        return None


_CHECKS: dict[str, Callable[[Any, Field, str, Problems], Any]] = {
    "str": _check_text,
    "int": _check_int,
    "number": _check_number,
    "bytes": _check_bytes,
    "bool": _check_bool,
    "duration": _check_duration,
    "dict": _check_dict,
    "toggle": _check_toggle,
    "list": _check_list,
    "map": _check_map,
    "any": _check_any,
}

_TYPE_WORDS = {
    "str": "give text",
    "int": "give a whole number",
    "number": "give a number",
    "bytes": "give a size such as 256Mi, 1Gi or a number of bytes",
    "bool": "give true or false",
    "duration": "give a time such as 250ms, 2s, 1m or 1h",
    "dict": "give a dict",
    "toggle": "give a dict, true or false",
    "list": "give a list",
    "map": "give a dict",
    "any": "give a value",
}
