"""Envoy's YAML. That the real Envoy reads it so is a test of tests/behaviour/test_edges.py."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from hypothesis import given, settings
from hypothesis import strategies as some

QUOTED = [
    *("y", "n", "Y", "N", "yes", "No", "on", "OFF", "true", "False", "null", "NULL", "~", "", "<<", "="),
    *("1", "-1", "+1", "1.", ".5", "-.5", "1e3", "1E+3", "1.5e-3", "0x1f", "0X1F", "0x1p3", "0X1.8P-3", "0b1", "017"),
    *("08", "1_000", "12:30:45", "2001-01-01", "inf", "-INF", ".inf", "nan", "-NaN", ".NaN", "Infinity"),
]
PLAIN = [
    *("yy", "yep", "None", "nil", "o", "1a", "1e", "e1", "0x", "0x1g", "1.2.3", "127.0.0.1", "8s", "0.25s", "0o17"),
    *("infinit", "nano", "in", "a-b", "a_b", "/a b", "(a)", "a:b", "ü"),
]


@pytest.mark.parametrize("text", QUOTED)
def test_text_that_looks_like_something_else_is_quoted(text: str) -> None:
    assert envoy_yaml.dump({"a": text}) == f"a: '{text}'\n"
    assert envoy_yaml.dump({text: "a"}).split(":")[0].strip("? ").startswith("'")


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_is_not_quoted(text: str) -> None:
    assert envoy_yaml.dump({"a": text}) == f"a: {text}\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (None, "null"),
        (1, "1"),
        (0.25, "0.25"),
        ([], "[]"),
        ({}, "{}"),
        ("a\nb\n", "|\n  a\n  b"),
        ("a\nb", "|-\n  a\n  b"),
        ("a\u2028b", '"a\\Lb"'),
    ],
)
def test_other_values(value: Any, text: str) -> None:
    assert envoy_yaml.dump({"a": value}) == f"a: {text}\n"
    assert envoy_yaml.load(envoy_yaml.dump({"a": value})) == {"a": value}


def test_tuples_are_lists() -> None:
    assert envoy_yaml.dump({"a": (1, (2, ()))}) == "a:\n- 1\n- - 2\n  - []\n"


def test_keys_are_sorted_and_shared_parts_written_out() -> None:
    shared = {"z": 1, "a": [1]}
    text = envoy_yaml.dump({"b": shared, "a": shared})
    assert text == "a:\n  a:\n  - 1\n  z: 1\nb:\n  a:\n  - 1\n  z: 1\n"


TEXT = (
    some.text(some.characters(exclude_categories=("Cs",), exclude_characters="\x85\0"))
    | some.text("ab \n\t:-#'\"\\%{}[],&*!|>@`?~1.é\u2028\r", max_size=12)
    | some.sampled_from(["a" * 128, "a" * 129, "é" * 64, "é" * 65, "a b " * 2000, " a\nb" * 1500, *QUOTED, *PLAIN])
)
KEY = TEXT | some.integers() | some.booleans() | some.none()
DATA = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | TEXT,
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.dictionaries(TEXT, inner, max_size=4)
        | some.dictionaries(KEY, inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(database=None, derandomize=True, deadline=None, max_examples=300)
@given(DATA)
def test_what_is_written_is_read_again(data: Any) -> None:
    assert envoy_yaml.load(envoy_yaml.dump(data)) == data


@settings(database=None, derandomize=True, deadline=None, max_examples=300)
@given(DATA)
def test_text_is_what_libyaml_writes(data: Any) -> None:
    """PyYAML's dumper with our quoting, all of it: the lines around scalars are where it puts them."""
    expected = yaml.dump(
        data, Dumper=envoy_yaml._EnvoyDumper, default_flow_style=False, allow_unicode=True, width=2**31 - 1
    )
    # An empty line at its end makes it mark the document's end.
    assert envoy_yaml.dump(data).removesuffix("...\n") == expected.removesuffix("...\n")


def test_the_hash_knows_content_not_order() -> None:
    assert envoy_yaml.content_hash({"a": 1, "b": [1, 2]}) == envoy_yaml.content_hash({"b": [1, 2], "a": 1})
    assert envoy_yaml.content_hash([1, 2]) != envoy_yaml.content_hash([2, 1])
    assert envoy_yaml.content_hash({"a": "1"}) != envoy_yaml.content_hash({"a": 1})
    assert len(envoy_yaml.content_hash({})) == 12
