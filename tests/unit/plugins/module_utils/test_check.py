"""Checks of single values: what the model makes of them, and every message."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.check import check, check_fields, plain_repr, words

TEXT = {"type": "str"}
CHOICE = {"type": "str", "choices": ("round_robin", "random")}
LABEL = {"type": "str", "pattern": "dns_label"}
PORT = {"type": "int", "minimum": 1, "maximum": 65535}
COUNT = {"type": "int", "minimum": 0}
WHOLE = {"type": "int"}
FLAG = {"type": "bool"}
TIME = {"type": "duration"}
SPAN = {"type": "duration", "minimum": 0.001, "maximum": 60}
DELAY = {"type": "duration", "minimum": 1}
SHARE = {"type": "number", "minimum": 0, "maximum": 100}
FACTOR = {"type": "number", "minimum": 0.1}
NUMBER = {"type": "number"}
SIZE = {"type": "bytes", "minimum": 1}
RETRIES = {
    "type": "dict",
    "shorthand": "count",
    "fields": {"count": {**COUNT, "default": 2}, "on": {"type": "list", "items": CHOICE}},
}
PLAIN_DICT = {"type": "dict", "fields": {"name": {**LABEL, "required": True}, "port": PORT}}
TOGGLE = {"type": "toggle", "fields": {"port": {**PORT, "default": 80}}}
NEEDY = {"type": "toggle", "fields": {"name": {**LABEL, "required": True}}}
LIST = {"type": "list", "items": PORT}
MAP = {"type": "map", "items": TEXT, "keys": "variable"}
PATCH = {"type": "map", "items": {"type": "any"}}
OBJECT = object()

LABEL_WORDS = "give lower-case letters, digits and '-', starting with a letter, at most 63 characters"


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        (TEXT, "a", "a"),
        (TEXT, "", ""),
        (TEXT, 80, "80"),
        (TEXT, 1.5, "1.5"),
        (CHOICE, "random", "random"),
        (LABEL, "a-1", "a-1"),
        (PORT, 1, 1),
        (PORT, "65535", 65535),
        (WHOLE, "-3", -3),
        (FLAG, True, True),
        (FLAG, "False", False),
        (FLAG, "true", True),
        (TIME, 2, "2s"),
        (TIME, "250ms", "0.25s"),
        (TIME, 0, "0s"),
        (SPAN, "1ms", "0.001s"),
        (SPAN, "1m", "60s"),
        (SHARE, 0, 0),
        (SHARE, 100, 100),
        (SHARE, "12.5", 12.5),
        (SHARE, "7", 7),
        (SHARE, 7.0, 7),
        (SHARE, 0.01, 0.01),
        (NUMBER, "-1.5", -1.5),
        (SIZE, 1, 1),
        (SIZE, "1000", 1000),
        (SIZE, "256Mi", 268435456),
        (SIZE, "2G", 2000000000),
        (RETRIES, {}, {"count": 2, "on": None}),
        (RETRIES, 3, {"count": 3, "on": None}),
        (RETRIES, "3", {"count": 3, "on": None}),
        (RETRIES, {"count": None}, {"count": 2, "on": None}),
        (RETRIES, {"on": ["random"]}, {"count": 2, "on": ["random"]}),
        (RETRIES, {True: ["random"]}, {"count": 2, "on": ["random"]}),  # `on:` as YAML 1.1 reads it
        (PLAIN_DICT, {"name": "a"}, {"name": "a", "port": None}),
        (TOGGLE, True, {"port": 80}),
        (TOGGLE, False, False),
        (TOGGLE, {"port": 8080}, {"port": 8080}),
        (LIST, [], []),
        (LIST, ["80", 81], [80, 81]),
        (MAP, {"A": 1}, {"A": "1"}),
        (PATCH, {"a": None, "b": [1, {"c": True}]}, {"a": None, "b": [1, {"c": True}]}),
        (PATCH, {1: 2}, {"1": 2}),
    ],
)
def test_values_in_their_normal_form(field: dict[str, Any], value: Any, expected: Any) -> None:
    problems: list[str] = []
    assert (check(value, field, "x", problems), problems) == (expected, [])


@pytest.mark.parametrize(
    ("field", "value", "problems"),
    [
        (TEXT, True, ["x: True is not allowed; give text (quote it: YAML reads it as a boolean)"]),
        (TEXT, ["a"], ["x: ['a'] is not allowed; give text"]),
        (TEXT, {}, ["x: {} is not allowed; give text"]),
        (
            CHOICE,
            "round-robin",
            ["x: 'round-robin' is not allowed; give round_robin or random, did you mean 'round_robin'?"],
        ),
        (CHOICE, "xyz", ["x: 'xyz' is not allowed; give round_robin or random"]),
        (
            CHOICE,
            True,
            ["x: True is not allowed; give round_robin or random (quote it: YAML reads it as a boolean)"],
        ),
        (LABEL, "A_b", [f"x: 'A_b' is not allowed; {LABEL_WORDS}"]),
        (LABEL, "", [f"x: '' is not allowed; {LABEL_WORDS}"]),
        (PORT, 0, ["x: 0 is not allowed; give a whole number from 1 to 65535"]),
        (PORT, 65536, ["x: 65536 is not allowed; give a whole number from 1 to 65535"]),
        (PORT, "80a", ["x: '80a' is not allowed; give a whole number from 1 to 65535"]),
        (PORT, 80.0, ["x: 80.0 is not allowed; give a whole number from 1 to 65535"]),
        (PORT, True, ["x: True is not allowed; give a whole number from 1 to 65535"]),
        (PORT, "9" * 20, [f"x: '{'9' * 20}' is not allowed; give a whole number from 1 to 65535"]),
        (COUNT, -1, ["x: -1 is not allowed; give a whole number of at least 0"]),
        (WHOLE, "x", ["x: 'x' is not allowed; give a whole number"]),
        (FLAG, "yes", ["x: 'yes' is not allowed; give true or false"]),
        (FLAG, 1, ["x: 1 is not allowed; give true or false"]),
        (TIME, "soon", ["x: 'soon' is not allowed; give a time such as 250ms, 2s, 1m or 1h"]),
        (TIME, "2", ["x: '2' is not allowed; give a time such as 250ms, 2s, 1m or 1h"]),
        (TIME, -1, ["x: -1 is not allowed; give a time such as 250ms, 2s, 1m or 1h"]),
        (TIME, float("inf"), ["x: inf is not allowed; give a time such as 250ms, 2s, 1m or 1h"]),
        (SPAN, 0, ["x: 0 is not allowed; give a time such as 250ms, 2s, 1m or 1h from 0.001s to 60s"]),
        (SPAN, "2m", ["x: '2m' is not allowed; give a time such as 250ms, 2s, 1m or 1h from 0.001s to 60s"]),
        (DELAY, "900ms", ["x: '900ms' is not allowed; give a time such as 250ms, 2s, 1m or 1h of at least 1s"]),
        (SHARE, -0.1, ["x: -0.1 is not allowed; give a number from 0 to 100"]),
        (SHARE, "100.1", ["x: '100.1' is not allowed; give a number from 0 to 100"]),
        (SHARE, True, ["x: True is not allowed; give a number from 0 to 100"]),
        (SHARE, "1e2", ["x: '1e2' is not allowed; give a number from 0 to 100"]),
        (SHARE, float("nan"), ["x: nan is not allowed; give a number from 0 to 100"]),
        (FACTOR, 0, ["x: 0 is not allowed; give a number of at least 0.1"]),
        (NUMBER, "many", ["x: 'many' is not allowed; give a number"]),
        (
            SIZE,
            0,
            ["x: 0 is not allowed; give a size such as 256Mi, 1Gi or a number of bytes of at least 1"],
        ),
        (
            SIZE,
            "1.5Gi",
            ["x: '1.5Gi' is not allowed; give a size such as 256Mi, 1Gi or a number of bytes of at least 1"],
        ),
        (NEEDY, True, [f"x.name: is missing; {LABEL_WORDS}"]),
        (RETRIES, "x", ["x.count: 'x' is not allowed; give a whole number of at least 0"]),
        (RETRIES, [2], ["x: [2] is not allowed; give a dict"]),
        (
            RETRIES,
            {"cuont": 1, "zzz": 1},
            [
                "x.cuont: unknown key, did you mean 'count'? (known: count, on)",
                "x.zzz: unknown key (known: count, on)",
            ],
        ),
        (
            RETRIES,
            {"count": -1, "on": ["a", "random", "b"]},
            [
                "x.count: -1 is not allowed; give a whole number of at least 0",
                "x.on[0]: 'a' is not allowed; give round_robin or random",
                "x.on[2]: 'b' is not allowed; give round_robin or random",
            ],
        ),
        (PLAIN_DICT, "a", ["x: 'a' is not allowed; give a dict"]),
        (PLAIN_DICT, None, ["x: None is not allowed; give a dict"]),
        (PLAIN_DICT, {}, [f"x.name: is missing; {LABEL_WORDS}"]),
        (PLAIN_DICT, {"name": None}, [f"x.name: is missing; {LABEL_WORDS}"]),
        (
            PLAIN_DICT,
            {1: 2, "port": "x"},
            [
                "x.1: unknown key (known: name, port)",
                f"x.name: is missing; {LABEL_WORDS}",
                "x.port: 'x' is not allowed; give a whole number from 1 to 65535",
            ],
        ),
        (TOGGLE, "no", ["x: 'no' is not allowed; give a dict, true or false"]),
        (TOGGLE, 80, ["x: 80 is not allowed; give a dict, true or false"]),
        (LIST, 80, ["x: 80 is not allowed; give a list"]),
        (LIST, {"a": 1}, ["x: {'a': 1} is not allowed; give a list"]),
        (
            LIST,
            [80, None, "a"],
            [
                "x[1]: None is not allowed; give a whole number from 1 to 65535",
                "x[2]: 'a' is not allowed; give a whole number from 1 to 65535",
            ],
        ),
        (MAP, ["A=1"], ["x: ['A=1'] is not allowed; give a dict"]),
        (
            MAP,
            {"A-B": "1", "C": True, "D": None},
            [
                "x (key): 'A-B' is not allowed; give letters, digits and '_', not starting with a digit",
                "x.C: True is not allowed; give text (quote it: YAML reads it as a boolean)",
                "x.D: None is not allowed; give text",
            ],
        ),
        (
            MAP,
            {True: "1"},
            [
                (
                    "x (key): True is not allowed; give letters, digits and '_', not starting with a digit "
                    "(quote it: YAML reads it as a boolean)"
                )
            ],
        ),
        (
            PATCH,
            {"a": OBJECT},
            ["x.a: a value of type object is not plain data; give text, numbers, booleans, lists and dicts"],
        ),
    ],
)
def test_every_mistake_has_its_line(field: dict[str, Any], value: Any, problems: list[str]) -> None:
    found: list[str] = []
    check(value, field, "x", found)
    assert found == problems


def test_the_argument_is_not_changed_and_not_shared() -> None:
    value = {"a": {"b": [1]}}
    checked = check(value, PATCH, "x", [])
    checked["a"]["b"].append(2)
    assert value == {"a": {"b": [1]}}


def test_defaults_are_not_shared() -> None:
    fields = {"list": {"type": "list", "items": TEXT, "default": []}}
    check_fields({}, fields, "x", [])["list"].append("a")
    assert check_fields({}, fields, "x", []) == {"list": []}


@pytest.mark.parametrize(("values", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a or b"), ([1, 2, 3], "1, 2 or 3")])
def test_words(values: list[Any], text: str) -> None:
    assert words(values) == text


def test_long_values_are_cut() -> None:
    assert plain_repr("a" * 78) == repr("a" * 78)
    assert plain_repr("a" * 100) == "'" + "a" * 76 + "..."
    assert plain_repr(OBJECT) == "a value of type object"
