"""Whatever an inventory says: it is built or refused with reasons, and who heeds the reasons gets a mesh."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import schema
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.summary import summary

NAMES = ("a", "b", "c", "d")
TEXTS = {
    "dns_label": "a",
    "ip": "10.0.0.1",
    "path": "/a",
    "server_name": "*.x.y",
    "host_name": "x.y",
    "grpc": "a.B",
}
TIMES = ("1ms", "1s", 90, "1h")


def wrong() -> Any:
    yield from itertools.cycle([None, True, -1, "x", "", [], {}, [None], {"a": 1}, 1.5, float("nan"), [[]], "*"])


class Writer:
    """Writes inventories by the schema. ``share`` of the optional keys are given, and ``mistakes`` of all values."""

    def __init__(self, seed: int, share: float, mistakes: float) -> None:
        self.chance, self.share, self.mistakes = random.Random(seed), share, mistakes
        self.ports: Iterator[int] = itertools.count(2000)
        self.wrong = wrong()

    def value(self, field: schema.Field, key: str = "") -> Any:
        if self.chance.random() < self.mistakes:
            return next(self.wrong)
        if "choices" in field:
            return self.chance.choice(field["choices"])
        return getattr(self, f"_{field['type']}")(field, key)

    def _str(self, field: schema.Field, key: str) -> str:
        if key in ("service", "services"):
            return self.chance.choice((*NAMES, *NAMES, "nobody"))
        return TEXTS.get(field.get("pattern", ""), "x")

    def _number(self, field: schema.Field, key: str) -> Any:
        if "port" in key:
            return next(self.ports)
        low = field.get("minimum", 0)
        return self.chance.choice([low, min(low + 1, field.get("maximum", low + 1))])

    _int = _number

    def _bool(self, *_rest: Any) -> bool:
        return self.chance.random() < 0.5

    def _duration(self, *_rest: Any) -> Any:
        return self.chance.choice(TIMES)

    def _bytes(self, *_rest: Any) -> str:
        return "1Gi"

    def _any(self, *_rest: Any) -> int:
        return 1

    def _map(self, field: schema.Field, _key: str) -> Any:
        return {"x": self.value(field["items"])}

    def _list(self, field: schema.Field, key: str) -> Any:
        return [self.value(field["items"], key) for _rest in range(self.chance.choice([0, 1, 1, 2]))]

    def _toggle(self, field: schema.Field, key: str) -> Any:
        return self._bool() if self._bool() else self._dict(field, key)

    def _dict(self, field: schema.Field, _key: str) -> Any:
        return {
            key: self.value(inner, key)
            for key, inner in field["fields"].items()
            if inner.get("required") or self.chance.random() < self.share
        }

    def inventory(self, engine: str) -> dict[str, Any]:
        services = []
        for name in NAMES:
            service = self._dict(schema.SERVICE, "") | {"name": name, "image": "x", "command": ["x"]}
            if self._bool():
                service["upstreams"] = [self._dict(schema.UPSTREAM, "") | {"port": next(self.ports)}]
            services.append(service)
        route = {"prefix": "/", "service": self.chance.choice(NAMES)}
        front = self._dict(schema.FRONT_PROXY, "") | {"name": "f", "routes": [route]}
        mesh = {f"mesh_{key}": self.value(field) for key, field in schema.MESH.items() if self.chance.random() < 0.1}
        return {**mesh, "mesh_services": services, "mesh_front_proxies": [front], "mesh_engine": engine}


def build(inventory: dict[str, Any]) -> dict[str, Any]:
    settings = {key.removeprefix("mesh_"): value for key, value in inventory.items()}
    services, fronts = settings.pop("services"), settings.pop("front_proxies")
    return build_model(services, fronts, settings)


# What a line asks for, where removing something is not what it asks.
GIVEN = {"hash_on": {"source_ip": True}, "discovery": "static", "server_names": ["x.y"], "zones": ["x"]}


def heed(inventory: dict[str, Any], problem: str) -> None:
    """Removes what a line is about; gives what is missing, or removes what it is missing in."""
    keys = [int(key) if key.isdigit() else key for key in re.findall(r"[^.\[\]]+", problem.split(":")[0].split(" ")[0])]
    holders: list[tuple[Any, Any]] = []
    holder: Any = inventory
    for key in keys:
        holders.append((holder, key))
        try:
            holder = holder[key]
        except (KeyError, IndexError, TypeError):
            break
    holder, key = holders[-1]
    if isinstance(holder, dict) and key not in holder and key in GIVEN:
        holder[key] = GIVEN[key]
        return
    for holder, key in reversed(holders):
        if isinstance(holder, dict) and key in holder and key not in ("name", "mesh_services", "mesh_front_proxies"):
            del holder[key]
            return
        if isinstance(holder, list) and key < len(holder):
            del holder[key]
            return


@pytest.mark.parametrize("engine", ["local", "kubernetes"])
@pytest.mark.parametrize(("share", "mistakes"), [(0.05, 0.0), (0.1, 0.01), (0.4, 0.0), (0.4, 0.05)])
def test_any_inventory(engine: str, share: float, mistakes: float) -> None:
    proxies = 0
    for seed in range(25):
        inventory = Writer(seed, share, mistakes).inventory(engine)
        model = None
        for _rest in range(300):
            try:
                model = build(inventory)
                break
            except ModelError as error:
                heed(inventory, error.problems[0])
        assert model, f"seed {seed}: the reasons lead nowhere"
        proxies += len(mesh_files(model))
        assert summary(model)
    assert proxies > 25
