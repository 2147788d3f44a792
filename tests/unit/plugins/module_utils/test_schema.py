"""The schema's tables agree with themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import schema
from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.values import duration

TYPES = {"str", "int", "number", "bool", "duration", "dict", "list", "map", "any", "toggle"}
KEYS = {
    *("type", "description", "default", "required", "choices", "minimum", "maximum", "pattern", "fields", "items"),
    *("shorthand", "example", "keys"),
}
ROOTS = {**schema.SECTIONS, "mesh": {"type": "dict", "fields": schema.MESH}, "mesh_checks": schema.CHECKS}


def fields(field: schema.Field, path: str) -> Iterator[tuple[str, schema.Field]]:
    yield path, field
    for key, inner in field.get("fields", {}).items():
        yield from fields(inner, f"{path}.{key}")
    if "items" in field:
        yield from fields(field["items"], f"{path}[]")


EVERY = dict(pair for name, root in ROOTS.items() for pair in fields(root, name))


@pytest.mark.parametrize("path", EVERY)
def test_a_field_says_what_it_may_say(path: str) -> None:
    field = EVERY[path]
    assert field["type"] in TYPES
    assert set(field) <= KEYS
    assert ("fields" in field) == (field["type"] in ("dict", "toggle"))
    assert ("items" in field) == (field["type"] in ("list", "map"))
    assert field.get("shorthand") in (None, *field.get("fields", ()))
    assert field.get("pattern") in (None, *schema.PATTERNS)
    assert field.get("keys") in (None, *schema.PATTERNS)
    assert not ("default" in field and field.get("required"))
    if not path.endswith("[]") and path not in ("mesh", "mesh_checks"):
        assert re.fullmatch(r"\S.*[.]", field["description"]) or "/" in field["description"]


@pytest.mark.parametrize("path", [path for path, field in EVERY.items() if {"default", "example"} & set(field)])
def test_defaults_and_examples_are_allowed(path: str) -> None:
    field = EVERY[path]
    for key in ("default", "example"):
        problems: list[str] = []
        value: Any = field.get(key)
        if value is not None:
            check(value, field, path, problems)
            assert problems == []
        if key == "default" and field["type"] == "duration":
            assert duration(value)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("dns_label", ["a", "a-1", "a" * 63], ["", "1a", "-a", "a-", "A", "a_b", "a.b", "a" * 64, "a\n"]),
        ("dns_domain", ["cluster.local", "a", "1.a"], ["", "a.", ".a", "-a", "A"]),
        (
            "ip",
            ["10.0.0.1", "::1", "::", "fd00::a", "::ffff:1.2.3.4"],
            ["", "a", "db.example.com", "10.0.0.1:80", "f:1"],
        ),
        ("path", ["/", "/a?b"], ["", "a", "/a b", " /a", "/a\n"]),
        ("grpc", ["Echo", "api.Echo", "api.v1.Echo/Echo"], ["", "/api.Echo", "api.Echo/", "api.Echo/a.b", "1a", "a b"]),
        ("header", ["x-user", "X_user", "a"], ["", "a b", "a:", ":path", "ü"]),
        ("variable", ["A", "_a1"], ["", "1A", "A-B", "A B"]),
    ],
)
def test_patterns(pattern: str, good: list[str], bad: list[str]) -> None:
    expression = schema.PATTERNS[pattern][0]
    assert [text for text in good if not re.fullmatch(expression, text)] == []
    assert [text for text in bad if re.fullmatch(expression, text)] == []
