# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's schema as a JSON Schema, for editors.

Draft 7 is the latest that the YAML language server of VS Code and of most other editors reads; nothing here needs a
later one. It refuses what the model refuses in one value: unknown keys, types, choices, limits, patterns. What values
demand of each other (names that exist, ports that differ) only the model knows.

In an inventory any value may be a template, so every place takes one. A file of variables has others beside the mesh's,
so the top level takes any.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Field = dict[str, Any]
Schema = dict[str, Any]

DRAFT = "http://json-schema.org/draft-07/schema#"
TEMPLATE: Schema = {"$ref": "#/definitions/template"}
TEMPLATE_PATTERN = r"\{\{|\{%"
NUMBER_PATTERNS = {"int": r"^-?[0-9]{1,15}$", "number": r"^-?[0-9]{1,15}(\.[0-9]{1,15})?$"}
"""Numbers as text, which templates of other variables make."""
DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
BYTES_PATTERN = r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?|k)?$"
IP_FORMATS = ("ipv4", "ipv6")


class JsonSchema:
    """Makes the schema. ``patterns``: as the model has them; ``markdown``: turns the markup of descriptions into it."""

    def __init__(self, patterns: dict[str, tuple[str, str]], markdown: Callable[[str], str]) -> None:
        self._patterns = patterns
        self._markdown = markdown
        self._definitions: dict[str, Schema] = {}
        self._names: dict[int, str] = {}

    def document(self, title: str, address: str, variables: dict[str, Field]) -> Schema:
        """The schema of a file with these variables among others."""
        properties = {name: self._field(name, field) for name, field in variables.items()}
        inventory = {"type": "object", "properties": {name: {"$ref": f"#/properties/{name}"} for name in variables}}
        template = {"description": "A template.", "type": "string", "pattern": TEMPLATE_PATTERN}
        return {
            "$schema": DRAFT,
            "$id": address,
            "title": title,
            "type": "object",
            # A whole inventory has them one level deeper.
            "properties": {**properties, "all": {"type": "object", "properties": {"vars": inventory}}},
            "definitions": {**self._definitions, "template": template},
        }

    def _field(self, name: str, field: Field) -> Schema:
        """A key: what it says, and what it takes. Null is the same as nothing, unless there has to be something."""
        forms = [*self._forms(name, field), TEMPLATE]
        if not field.get("required"):
            forms.append({"type": "null"})
        schema: Schema = {}
        if "description" in field:
            text = self._markdown(field["description"])
            schema |= {"description": _bare(text), "markdownDescription": text}
        if "default" in field:
            schema["default"] = field["default"]
        if "example" in field:
            schema["examples"] = [field["example"]]
        return {**schema, "anyOf": forms}

    def _forms(self, name: str, field: Field) -> list[Schema]:
        """What a value may look like."""
        kind = field["type"]
        if kind in ("dict", "toggle"):
            toggle: list[Schema] = [{"type": "boolean"}] if kind == "toggle" else []
            short = field.get("shorthand")
            bare = self._forms(short, field["fields"][short]) if short else []
            return [self._dict(name, field["fields"]), *toggle, *bare]
        if kind == "list":
            return [{"type": "array", "items": self._item(name, field["items"])}]
        if kind == "map":
            return [self._map(name, field)]
        return self._scalar(field)

    def _item(self, name: str, field: Field) -> Schema:
        forms = [*self._forms(name, field), TEMPLATE]
        return {"anyOf": forms}

    def _map(self, name: str, field: Field) -> Schema:
        schema: Schema = {"type": "object", "additionalProperties": self._item(name, field["items"])}
        if "keys" in field:
            schema["propertyNames"] = {"pattern": f"^(?:{self._patterns[field['keys']][0]})$"}
        return schema if field["items"]["type"] != "any" else {**schema, "additionalProperties": True}

    def _dict(self, name: str, fields: dict[str, Field]) -> Schema:
        """A reference: the same fields in many places are there once."""
        if id(fields) not in self._names:
            same = sum(known.partition("-")[0] == name for known in self._definitions)
            reference = f"{name}-{same + 1}" if same else name
            self._names[id(fields)] = reference
            self._definitions[reference] = {}
            required = [key for key, field in fields.items() if field.get("required")]
            self._definitions[reference] = {
                "type": "object",
                "properties": {key: self._field(key, field) for key, field in fields.items()},
                **({"required": required} if required else {}),
                "additionalProperties": False,
            }
        return {"$ref": f"#/definitions/{self._names[id(fields)]}"}

    def _scalar(self, field: Field) -> list[Schema]:
        kind = field["type"]
        limits = {key: field[key] for key in ("minimum", "maximum") if key in field}
        if kind == "str":
            return self._text(field)
        if kind == "bool":
            return [{"type": "boolean"}, {"type": "string", "pattern": "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"}]
        if kind == "duration":
            return [{"type": "number", "minimum": 0, **limits}, {"type": "string", "pattern": DURATION_PATTERN}]
        if kind == "bytes":
            return [{"type": "integer", "minimum": 0, **limits}, {"type": "string", "pattern": BYTES_PATTERN}]
        if kind in NUMBER_PATTERNS:
            number = {"int": "integer", "number": "number"}[kind]
            return [{"type": number, **limits}, {"type": "string", "pattern": NUMBER_PATTERNS[kind]}]
        return [{}]

    def _text(self, field: Field) -> list[Schema]:
        """Numbers are text, too; YAML has no other way to say 1.5 in a list of words."""
        if "choices" in field:
            return [{"enum": list(field["choices"])}]
        if "pattern" not in field:
            return [{"type": ["string", "number"]}]
        pattern = self._patterns[field["pattern"]][0]
        text = {"type": "string", "pattern": f"^(?:{pattern})$"}
        if field["pattern"] == "ip":
            return [{**text, "format": name} for name in IP_FORMATS]
        return [text, {"type": "number"}] if re.fullmatch(pattern, "1") else [text]


def _bare(text: str) -> str:
    """Markdown for those who see it as text."""
    return text.replace("`", "").replace("**", "")
