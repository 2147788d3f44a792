"""Random damage to an inventory: what authors mistype, what YAML makes of it, and worse."""

from __future__ import annotations

import contextlib
import copy
import datetime
import math
from typing import Any

from hypothesis import strategies as some
from properties.inventories import Draw, Inventory

Place = tuple[Any, Any]
"""A dict or list, and a key or index in it."""

MOST = 3
"""Damages of one inventory."""
LEVELS = 15
"""How deep damage is done; an inventory has fewer levels."""
DEEP = 3000
"""Lists in lists: more than Python's stack takes."""


def _deep() -> list[Any]:
    value: list[Any] = []
    for _level in range(DEEP):
        value = [value]
    return value


def _endless() -> list[Any]:
    """As an alias within its own anchor makes it."""
    value: list[Any] = []
    value.append(value)
    return value


NASTY = (
    *(None, True, False, 0, -1, 2**31, 2**32, 2**64, 10**400, -(2**70), 0.5, math.nan, math.inf, -math.inf, 1e308),
    *(
        "",
        " ",
        "0",
        "-1",
        "1e5",
        "true",
        "nan",
        "99999999999999999999",
        "1h",
        "-5s",
        "9" * 5000,
        "/",
        "*",
        "%",
        "$(PORT)",
    ),
    *(
        "a\nb",
        "a\r\n: b",
        "\x00",
        "\x1b[31m",
        "\u2028",
        "é" * 50,
        "\ud800",
        "\U0001d54f",
        "{{ undefined }}",
        "{% raw %}",
        "!!python/none",
    ),
    *("'", '"', "a: b", "- a", "&a *a", "x" * 10_000),
    *(
        [],
        {},
        [[]],
        [None],
        [[[[]]]],
        {"": ""},
        {"a": {"a": {"a": []}}},
        {None: 1},
        {1: 2},
        {"a\nb": 1},
        {"name": "a"},
        ["a", "a"],
    ),
    *(b"bytes", datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 12), {1, 2}, (1, 2)),
)
KEYS = (
    "",
    " ",
    "nmae",
    "name ",
    "Name",
    "port",
    "service",
    "envoy_patch",
    "on",
    "a.b",
    "a\nb",
    "a: b",
    "é",
    "{{ x }}",
    "x" * 500,
)
ODD_KEYS = (None, True, 1, 1.5, "\x00", b"k", (1, 2), datetime.date(2026, 1, 1))


def damaged(inventories: some.SearchStrategy[Inventory]) -> some.SearchStrategy[Inventory]:
    """Inventories with one to three damages."""
    return some.composite(_damaged)(inventories)


def _damaged(draw: Draw, inventories: some.SearchStrategy[Inventory]) -> Inventory:
    inventory = copy.deepcopy(draw(inventories))
    for _number in range(draw(some.integers(1, MOST))):
        places = list(_places(inventory))
        if places:
            draw(some.sampled_from(DAMAGES))(draw, *draw(some.sampled_from(places)), places, inventory)
    return inventory


def _places(value: Any, level: int = 0) -> list[Place]:
    """Every place within plain data; not all of what an earlier damage made very deep."""
    if level == LEVELS or not isinstance(value, (dict, list)):
        return []
    own: list[Place] = [(value, key) for key in (value if isinstance(value, dict) else range(len(value)))]
    return own + [place for holder, key in own for place in _places(holder[key], level + 1)]


def _delete(_draw: Draw, holder: Any, key: Any, *_rest: Any) -> None:
    del holder[key]


def _rename(draw: Draw, holder: Any, key: Any, _places: Any, inventory: Inventory) -> None:
    if isinstance(holder, dict):
        # Names of variables are words.
        new = (
            f"mesh_{key}x" if holder is inventory else draw(some.sampled_from(KEYS + ODD_KEYS) | some.text(max_size=10))
        )
        holder[new] = holder.pop(key)


def _replace(draw: Draw, holder: Any, key: Any, *_rest: Any) -> None:
    if draw(some.integers(0, 3)):
        made = draw(some.sampled_from((*NASTY, _deep, _endless)))
        holder[key] = made() if callable(made) else copy.deepcopy(made)
    else:
        holder[key] = draw(some.text(max_size=10) | some.integers() | some.floats())


def _add(draw: Draw, holder: Any, key: Any, *_rest: Any) -> None:
    """A key that nobody knows, or one more item."""
    if isinstance(holder, dict) and str(key).startswith("mesh_"):
        holder["mesh_unknown"] = 1
    elif isinstance(holder, dict):
        holder[draw(some.sampled_from(KEYS + ODD_KEYS))] = copy.deepcopy(draw(some.sampled_from(NASTY)))
    else:
        holder.append(copy.deepcopy(draw(some.sampled_from(NASTY))))


def _wrap(draw: Draw, holder: Any, key: Any, *_rest: Any) -> None:
    holder[key] = [holder[key]] if draw(some.booleans()) else {"name": holder[key]}


def _twice(_draw: Draw, holder: Any, key: Any, *_rest: Any) -> None:
    if isinstance(holder, list):
        holder.append(holder[key])


def _swap(draw: Draw, holder: Any, key: Any, places: list[Place], _inventory: Inventory) -> None:
    """The value of another place: names twice, references in circles, values of other types."""
    other, there = draw(some.sampled_from(places))
    with contextlib.suppress(RecursionError):
        holder[key] = copy.deepcopy(other[there])


DAMAGES = (_delete, _rename, _replace, _replace, _add, _wrap, _twice, _swap)
