"""Random inventories: the real Envoy accepts what is made of every valid one, and a damaged one gets a message.

A few hundred by default, the same ones each time. ``EXAMPLES=10000`` (make prove) tries more, ``SEED=2`` others. What
fails is made as small as it can be, and shown as an inventory.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml, names
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files, proxy_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Envoy, running_args
from ansible_collections.sidecar.mesh.plugins.module_utils.validate_join import NOWHERE, join
from golden.certificates import with_certificates
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as some
from properties.damage import damaged
from properties.inventories import TALLY, Inventory, inventories, model_of, schema_keys
from unit.test_json_schema import errors

EXAMPLES = int(os.environ.get("EXAMPLES", "0"))
SEED = int(os.environ.get("SEED", "1"))
MANY = 5000
CHUNK = 500
"""Examples of one test: what hypothesis remembers of them is gone with it, and there is something to see."""
BIN = Path(sys.executable).parent
JUDGED = itertools.count()

_PLACE = re.compile(r"mesh_\w+[^\n]*: [^\n]+")
_INTERNAL = re.compile(r"<[\w. ]+ (?:object )?at 0x|<class |<function |Traceback|_Ansible\w+\(")


def chunks(few: int) -> pytest.MarkDecorator:
    """So many examples, or EXAMPLES: a test for each chunk of them."""
    total = EXAMPLES or few
    sizes = [min(CHUNK, total - start) for start in range(0, total, CHUNK)]
    return pytest.mark.parametrize(("number", "size"), list(enumerate(sizes)), ids=str)


def every(strategy: some.SearchStrategy[Any], number: int, size: int, check: Callable[[Any], None]) -> None:
    """Checks examples of a strategy; the same ones each time."""
    checks = settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )

    def shown(example: Example) -> None:
        try:
            check(example.data)
        except Exception:
            show(example.data)
            raise

    seed(SEED * 10_000 + number)(checks(given(examples(strategy))(shown)))()


class Example:
    """Data that hypothesis does not print its own way, which damaged data may not survive."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __repr__(self) -> str:
        return "the following"


@some.composite
def examples(draw: some.DrawFn, strategy: some.SearchStrategy[Any]) -> Example:
    return Example(draw(strategy))


def show(example: Any) -> None:
    """As its author would have written it."""
    inventory = example[0] if isinstance(example, tuple) else example
    try:
        note(yaml.safe_dump(inventory, sort_keys=False, allow_unicode=True))
    except (yaml.YAMLError, RecursionError):
        note("(what YAML cannot write)")


@chunks(200)
def test_the_real_envoy_accepts_every_valid_inventory_without_a_warning(
    number: int, size: int, envoy: Envoy, certificates: Path
) -> None:
    def check(pair: tuple[Inventory, int]) -> None:
        inventory, chosen = pair
        model = model_of(inventory)
        assert [proxy["name"] for proxy in mesh_files(model)] == [proxy["name"] for proxy in model["proxies"]]
        if model["mesh"]["engine"] == "kubernetes":
            assert unsound(model) == []
        if model["proxies"]:
            proxy = model["proxies"][chosen % len(model["proxies"])]
            assert complaints(proxy, envoy, certificates) == [], proxy["name"]
            next(JUDGED)

    every(some.tuples(inventories(), some.integers(0, 99)), number, size, check)


def complaints(proxy: dict[str, Any], envoy: Envoy, certificates: Path) -> list[str]:
    """What the real Envoy has against the config of one proxy, warnings included."""
    joined = join({name: with_certificates(text, certificates) for name, text in proxy_files(proxy).items()})
    found = [*map(str, joined.problems), *joined.unchecked]
    outcome = envoy.judge(joined.tree, running_args(arguments(proxy, proxy["name"])))
    if not outcome.accepted:
        return found + (outcome.messages("critical") if outcome.refused else [outcome.failure()])
    said = [text for level in ("warning", "error") for text in outcome.messages(level)]
    # Joined for validation, a cluster of type EDS has a file that nobody writes.
    return found + [text for text in said if NOWHERE not in text]


def unsound(model: dict[str, Any]) -> list[str]:
    """Workloads whose objects are not what YAML holds, or not with their policies."""
    whole = mesh_manifests(model)
    policies = [mesh_policies(model, kind) for kind in ("cilium", "kubernetes")]
    there = [item["workload"] for item in whole]
    sender = {names.control_plane(model["mesh"]["name"])} if model["mesh"]["config_delivery"] == "ads" else set()
    wanted = {*there, *sender} if model["mesh"]["network_policy"] else set()
    assert all(set(found) == wanted for found in policies)
    objects = {
        item["workload"]: [*item["objects"], *(found.get(item["workload"]) for found in policies)] for item in whole
    }
    return [name for name, made in objects.items() if envoy_yaml.load(envoy_yaml.dump(made)) != made]


@chunks(60)
def test_the_json_schema_takes_every_valid_inventory(number: int, size: int) -> None:
    def check(inventory: Inventory) -> None:
        assert errors(inventory) == []

    every(inventories(), number, size, check)


@chunks(500)
def test_a_damaged_inventory_gets_a_message_and_never_a_traceback(number: int, size: int) -> None:
    def check(inventory: Inventory) -> None:
        try:
            model, problems = model_of(inventory), []
        except ModelError as error:
            model, problems = {"proxies": []}, error.problems
            assert str(error).splitlines()[1:] == [f"  {problem}" for problem in problems]  # noqa: PT017
        assert [line for line in problems if not _PLACE.fullmatch(line) or _INTERNAL.search(line)] == []
        for proxy in model["proxies"][:3]:
            assert proxy_files(proxy)

    every(damaged(inventories()), number, size, check)


def test_little_of_the_inventories_is_lost_in_making_them_valid() -> None:
    """The examples of all tests above; a new rule between keys may need a place in properties.inventories."""
    if TALLY.inventories < 300:
        pytest.skip("only after the other tests of this file")
    print(f"\n{TALLY}; {next(JUDGED)} configs accepted by Envoy")
    known = schema_keys()
    missing = sorted(known - set(TALLY.stayed))
    print(f"{len(known) - len(missing)} of {len(known)} keys of the schema tried; not: {', '.join(missing) or 'none'}")
    often = [f"{count} times: {reason}" for reason, count in TALLY.reasons.most_common(10)]
    assert TALLY.dropped < 0.3 * TALLY.generated, often
    assert len(missing) < (0.05 if EXAMPLES >= MANY else 0.6) * len(known), missing
