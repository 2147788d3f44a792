"""The JSON Schema for editors: it takes whatever inventory is shown or shipped, and refuses what the model refuses."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from jsonschema import Draft7Validator, FormatChecker
from unit.test_docs import PAGES, blocks, inventories, title

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "inventory.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA, format_checker=FormatChecker(["ipv4", "ipv6"]))
Data = dict[str, Any]


def errors(inventory: Data) -> list[str]:
    return [error.json_path for error in VALIDATOR.iter_errors(as_editors_read(inventory))]


def as_editors_read(value: Any) -> Any:
    """YAML 1.1, which Ansible reads, takes the key ``on`` for true; editors read YAML 1.2."""
    if isinstance(value, dict):
        return {"on" if key is True else key: as_editors_read(item) for key, item in value.items()}
    return [as_editors_read(item) for item in value] if isinstance(value, list) else value


def shipped() -> Iterator[tuple[str, Data]]:
    """The demo's systems, each in a file with names of its own, and all files of the inventories as they are."""
    for path in sorted(ROOT.glob("inventory/**/*.yml")):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = {"services": "mesh_services", "fronts": "mesh_front_proxies", "checks": "mesh_checks"}
        yield title(path), data
        yield f"{title(path)}, renamed", {names.get(name.partition("_")[2], name): item for name, item in data.items()}
    for path in sorted((ROOT / "tests" / "golden").glob("*/inventory.yml")):
        yield title(path), yaml.safe_load(path.read_text(encoding="utf-8"))


def whole() -> Iterator[tuple[str, Data]]:
    """Whole inventories in the pages, with the variables one level deeper."""
    for page in PAGES:
        for text in blocks(page, "yaml"):
            data = yaml.safe_load(text)
            if isinstance(data, dict) and "all" in data:
                yield f"{title(page)}, as a file", data


EVERY = [*inventories(), *whole(), *shipped()]


def test_it_is_a_json_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("where", "inventory"), EVERY, ids=lambda value: value if isinstance(value, str) else "")
def test_inventories_that_are_shown_or_shipped_are_valid(where: str, inventory: Data) -> None:
    assert errors(inventory) == [], where


SERVICE = {"name": "a", "image": "a:1", "command": ["a"], "port": 8080}
FRONT = {"name": "f", "listeners": [{"port": 80}], "routes": [{"prefix": "/", "service": "a"}]}


@pytest.mark.parametrize(
    ("service", "front", "settings"),
    [
        ({"nmae": "a"}, {}, {}),
        ({"protocol": "htttp"}, {}, {}),
        ({"port": "eighty"}, {}, {}),
        ({"port": 0}, {}, {}),
        ({"port": 65536}, {}, {}),
        ({"port": None}, {}, {}),
        ({"port": True}, {}, {}),
        ({"name": "A_B"}, {}, {}),
        ({"name": 1}, {}, {}),
        ({"replicas": 251}, {}, {}),
        ({"replicas": [2]}, {}, {}),
        ({"command": "a --b"}, {}, {}),
        ({"command": [["a"]]}, {}, {}),
        ({"environment": {"1A": "x"}}, {}, {}),
        ({"environment": {"A": {}}}, {}, {}),
        ({"endpoints": [{"address": "shop.example.com"}]}, {}, {}),
        ({"endpoints": [{"address": "999.1.1.1"}]}, {}, {}),
        ({"endpoints": [{"port": 1}]}, {}, {}),
        ({"sidecar": "no"}, {}, {}),
        ({"sidecar": {"access_log": "xml"}}, {}, {}),
        ({"sidecar": {"access_log": {"format": "xml"}}}, {}, {}),
        ({"egress": "all"}, {}, {}),
        ({"connect_timeout": "fast"}, {}, {}),
        ({"connect_timeout": 0}, {}, {}),
        ({"connect_timeout": -1}, {}, {}),
        ({"upstreams": {"service": "b"}}, {}, {}),
        ({"upstreams": [{"port": 9001}]}, {}, {}),
        ({"health_check": {"type": "ping"}}, {}, {}),
        ({"health_check": "ping"}, {}, {}),
        ({"envoy_patch": {"clusters": {}}}, {}, {}),
        ({}, {"listeners": None}, {}),
        ({}, {"listeners": [{"port": 80, "tls": {"secert": "x"}}]}, {}),
        ({}, {"listeners": [{"port": 80, "https_redirect": "maybe"}]}, {}),
        ({}, {"routes": [{"prefix": "api", "service": "a"}]}, {}),
        ({}, {"routes": [{"prefix": "/"}]}, {}),
        ({}, {"routes": [{"prefix": "/", "service": "a", "retries": 101}]}, {}),
        ({}, {"routes": [{"prefix": "/", "service": "a", "retries": {"on": ["never"]}}]}, {}),
        ({}, {"routes": [{"prefix": "/", "service": "a", "headers": [{"exact": "x"}]}]}, {}),
        ({}, {}, {"mesh_engine": "docker"}),
        ({}, {}, {"mesh_dns": {"query_tries": 0}}),
        ({}, {}, {"mesh_dns": [1]}),
    ],
    ids=str,
)
def test_what_the_model_refuses_in_a_value_it_refuses_too(service: Data, front: Data, settings: Data) -> None:
    inventory = {
        "mesh_services": [SERVICE | service],
        "mesh_front_proxies": [FRONT | front],
        **settings,
    }
    with pytest.raises(ModelError):
        build_model(
            inventory["mesh_services"],
            inventory["mesh_front_proxies"],
            {name.removeprefix("mesh_"): value for name, value in settings.items()},
        )
    assert errors(inventory) != []


def test_the_inventory_of_those_mistakes_is_valid_itself() -> None:
    assert errors({"mesh_services": [SERVICE], "mesh_front_proxies": [FRONT], "other": 1}) == []


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize(
    ("where", "inventory"), list(inventories()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_any_value_may_be_a_template(where: str, inventory: Data) -> None:
    inventory = copy.deepcopy(inventory)
    for holder, key in list(places(inventory)):
        before = holder[key]
        holder[key] = "{{ shop_value }}"
        assert errors(inventory) == [], f"{where}: {key}"
        holder[key] = before


def test_descriptions_are_without_markup() -> None:
    texts = [text for holder, key in places(SCHEMA) if key == "description" and isinstance(text := holder[key], str)]
    assert len(texts) > 100
    assert [text for text in texts if any(mark in text for mark in ("V(", "O(", "C(", "`"))] == []
