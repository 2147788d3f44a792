"""Plain values, durations, merge patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.values import (
    byte_count,
    duration,
    merge_patch,
    plain,
    present,
    seconds,
)


class Tagged(str):
    """As Ansible's strings are: a subclass that YAML emitters refuse."""


class Wrapped(dict):  # type: ignore[type-arg]
    """As Ansible's dicts are."""


def types(value: Any) -> Any:
    """The value with every type by its exact name."""
    if isinstance(value, dict):
        return type(value).__name__, {(type(key).__name__, key): types(item) for key, item in value.items()}
    if isinstance(value, list):
        return type(value).__name__, [types(item) for item in value]
    return type(value).__name__, value


def test_plain_is_a_deep_copy_without_subclasses() -> None:
    value = Wrapped({Tagged("a"): [Tagged("b"), 1, 1.5, True, None, Wrapped(), (1, 2)]})
    before = copy.deepcopy(value)
    assert types(plain(value)) == types({"a": ["b", 1, 1.5, True, None, {}, [1, 2]]})
    assert value == before
    assert plain(value)["a"] is not value["a"]


@pytest.mark.parametrize("value", [object(), {"a": [object()]}])
def test_plain_refuses_what_is_no_data(value: Any) -> None:
    with pytest.raises(TypeError):
        plain(value)


@pytest.mark.parametrize(
    ("value", "expected", "text"),
    [
        (0, 0.0, "0s"),
        (2, 2.0, "2s"),
        (0.25, 0.25, "0.25s"),
        ("0", None, None),
        ("0s", 0.0, "0s"),
        ("250ms", 0.25, "0.25s"),
        ("1ms", 0.001, "0.001s"),
        ("1.5s", 1.5, "1.5s"),
        ("1m", 60.0, "60s"),
        ("0.5m", 30.0, "30s"),
        ("2h", 7200.0, "7200s"),
        (Tagged("2h"), 7200.0, "7200s"),
        ("100s", 100.0, "100s"),
        (0.000000001, 1e-9, "0.000000001s"),
        (1e-10, 1e-10, "0s"),
        (315576000000, 315576000000.0, "315576000000s"),
        (315576000001, None, None),
        ("99999999999h", None, None),
        (float("inf"), None, None),
        (float("nan"), None, None),
        (-1, None, None),
        ("-1s", None, None),
        ("1 s", None, None),
        ("1S", None, None),
        ("1d", None, None),
        (".5s", None, None),
        ("1.s", None, None),
        ("", None, None),
        ("s", None, None),
        ("1s\n", None, None),
        (True, None, None),
        (None, None, None),
        (["1s"], None, None),
    ],
)
def test_durations(value: Any, expected: float | None, text: str | None) -> None:
    if expected is None:
        for function in (seconds, duration):
            with pytest.raises(ValueError):  # noqa: PT011 - its text is the value
                function(value)
    else:
        assert (seconds(value), duration(value)) == (expected, text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        ("512", 512),
        ("1k", 1000),
        ("1Ki", 1024),
        ("3M", 3000000),
        ("3Mi", 3145728),
        (Tagged("1G"), 10**9),
        ("1Gi", 2**30),
        ("1T", 10**12),
        ("1Ti", 2**40),
        *((wrong, None) for wrong in ("", "Mi", "1 Mi", "1mi", "1.5Mi", "-1", "1Mi\n", -1, 1.0, True, None, [1])),
    ],
)
def test_sizes(value: Any, expected: int | None) -> None:
    if expected is None:
        with pytest.raises(ValueError):  # noqa: PT011 - its text is the value
            byte_count(value)
    else:
        assert byte_count(value) == expected


# The examples of RFC 7396, appendix A, and what goes beyond them.
PATCHES: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ({"a": 1}, {}, {"a": 1}),
    ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
    ({"a": 1}, {"a": {"b": False}}, {"a": {"b": False}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), PATCHES)
def test_merge_patch_changes_neither_argument(target: Any, patch: Any, expected: Any) -> None:
    before = copy.deepcopy((target, patch))
    assert merge_patch(target, patch) == expected
    assert (target, patch) == before


def test_present_leaves_out_nothing_but_none_and_empty_containers() -> None:
    values = {"none": None, "dict": {}, "list": [], "zero": 0, "false": False, "text": "", "full": [None]}
    assert present(values) == {"zero": 0, "false": False, "text": "", "full": [None]}
