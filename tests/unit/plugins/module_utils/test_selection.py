"""A model from what a user gives, and one of its proxies."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import (
    SelectionError,
    as_model,
    callers_view,
    select,
)

TWO: list[dict[str, Any]] = [
    {"name": "b", "port": 80, "upstreams": [{"service": "a", "port": 90}]},
    {"name": "a", "port": 80},
]


def test_a_list_of_services_becomes_a_model() -> None:
    assert as_model(TWO) == build_model(TWO)


def test_a_model_stays_as_it_is_and_is_a_copy() -> None:
    model = build_model(TWO)
    before = copy.deepcopy(model)
    as_model(model)["mesh"]["name"] = "other"
    assert model == before


def test_a_wrong_list_is_told() -> None:
    with pytest.raises(ModelError, match=r"mesh_services\[0\]\.port: is missing"):
        as_model([{"name": "a"}])


def test_one_of_the_proxies() -> None:
    assert select(TWO, "a")["name"] == "a"
    assert select(TWO[1:], None)["name"] == "a"


@pytest.mark.parametrize(
    ("value", "proxy", "message"),
    [
        (TWO, None, "proxy: is missing; give one of: a, b"),
        (TWO, "c", "proxy: 'c' is not in the model; give one of: a, b"),
        ([], None, "proxy: is missing; give one of: none"),
        ([], "c", "proxy: 'c' is not in the model; give one of: none"),
    ],
)
def test_no_such_proxy(value: Any, proxy: str | None, message: str) -> None:
    with pytest.raises(SelectionError) as error:
        select(value, proxy)
    assert str(error.value) == message


def test_the_view_of_a_caller_of_everything() -> None:
    view = callers_view(TWO)
    assert [cluster["name"] for cluster in view["clusters"]] == ["b", "a"]
    assert view["paths"] == {"config": "/etc/envoy"}
