"""Steps of a change: which kind of resource goes when, and that no step breaks what the one before it needs."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.ordering import STEPS, Resources, every_step, steps
from hypothesis import given, settings
from hypothesis import strategies as some

KINDS = ("clusters", "endpoints", "listeners", "routes")


def resources(text: str) -> Resources:
    """Such as ``b=1 c=2 9001>b``: clusters with their endpoints and what both say, listeners with routes to a cluster.

    A listener may have a name of its own: ``out:9001>b``.
    """
    found: Resources = {kind: {} for kind in KINDS}
    for word in text.split():
        if "=" in word:
            name, _rest, content = word.partition("=")
            found["clusters"][name] = {"name": name, "content": content}
            found["endpoints"][name] = {"cluster_name": name, "content": content}
        else:
            name, _rest, cluster = word.partition(">")
            port = int(name.rpartition(":")[2])
            found["listeners"][name] = {"name": name, "address": {"socket_address": {"port_value": port}}}
            found["routes"][name] = {"name": name, "cluster": cluster}
    return found


def brief(step: Resources) -> str:
    """The opposite of resources, ``>9001`` for routes without listener; a cluster's endpoints must say the same."""
    clusters = {name: item["content"] for name, item in step["clusters"].items()}
    assert clusters == {name: item["content"] for name, item in step["endpoints"].items()}
    listeners = [f"{name}>{step['routes'][name]['cluster']}" for name in step["listeners"]]
    unused = [f">{name}" for name in step["routes"].keys() - step["listeners"].keys()]
    return " ".join(sorted([f"{name}={content}" for name, content in clusters.items()] + listeners + unused))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("", "b=1 9001>b", ["b=1", "9001>b b=1"]),
        ("b=1 9001>b", "", [">9001 b=1", ""]),
        ("b=1 9001>b", "b=2 9001>b", ["9001>b b=2"]),
        ("b=1 9001>b", "c=1 9001>c", ["9001>b b=1 c=1", "9001>c b=1 c=1", "9001>c c=1"]),
        ("b=1 9001>b", "b=1 9002>b", ["9001>b 9002>b b=1", "9002>b >9001 b=1", "9002>b b=1"]),
        ("b=1 in:9001>b", "b=1 out:9001>b", [">out:9001 b=1 in:9001>b", ">in:9001 b=1 out:9001>b", "b=1 out:9001>b"]),
        (
            "b=1 c=1 9001>b 9002>c",
            "b=2 d=1 9001>d 9003>b",
            [
                "9001>b 9002>c b=1 c=1 d=1",
                "9001>b 9002>c 9003>b b=1 c=1 d=1",
                "9001>b 9002>c 9003>b b=2 c=1 d=1",
                "9001>d 9002>c 9003>b b=2 c=1 d=1",
                "9001>d 9003>b >9002 b=2 c=1 d=1",
                "9001>d 9003>b b=2 d=1",
            ],
        ),
    ],
)
def test_steps(old: str, new: str, expected: list[str]) -> None:
    found = steps(resources(old), resources(new))
    assert [brief(step) for step in found] == expected
    assert found[-1] == resources(new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_without_resources_may_be_absent(kind: str) -> None:
    some_of = {kind: {"a": {"name": "a"}}}
    assert steps({}, some_of)[-1] == some_of
    assert steps(some_of, {})[-1] == {}
    assert steps(some_of, copy.deepcopy(some_of)) == steps({}, {}) == steps({kind: {}}, {}) == []


def test_several_proxies_can_go_in_step() -> None:
    found = every_step(resources("b=1"), resources("c=1"))
    assert [brief(step) for step in found] == ["b=1 c=1"] * 5 + ["c=1"]
    assert len(found) == STEPS


def test_the_port_of_a_listener_that_is_no_dictionary() -> None:
    old, new = {"listeners": {"in": "in 9001"}}, {"listeners": {"out": "out 9001"}}
    found = every_step(old, new, lambda text: text.split()[1])
    assert [sorted(step["listeners"]) for step in found] == [["in"]] * 3 + [["out"]] * 3


@some.composite
def proxy(draw: some.DrawFn) -> str:
    clusters = draw(some.lists(some.sampled_from("bcde"), unique=True, min_size=1))
    ports = draw(some.lists(some.sampled_from(["9001", "9002", "9003"]), unique=True))
    names = [draw(some.sampled_from([port, f"in:{port}"])) for port in ports]
    words = [f"{name}={draw(some.integers(1, 2))}" for name in clusters]
    return " ".join([*words, *(f"{name}>{draw(some.sampled_from(clusters))}" for name in names)])


@settings(database=None, derandomize=True, deadline=None, max_examples=300)
@given(proxy(), proxy())
def test_any_change(old: str, new: str) -> None:
    before, after = resources(old), resources(new)
    copies = copy.deepcopy((before, after))
    found = steps(before, after)
    assert (before, after) == copies
    assert found == [] if before == after else found[-1] == after
    for first, second in itertools.pairwise([before, *found]):
        assert first != second
        check(second)
        # A proxy may take what one step changes in any order.
        assert used(first) | used(second) <= first["clusters"].keys() & second["clusters"].keys()
        assert ports(before) & ports(after) <= ports(second)
        for kind in KINDS:
            assert before[kind].keys() & after[kind].keys() <= second[kind].keys()


def check(step: Resources) -> None:
    assert step["clusters"].keys() == step["endpoints"].keys()
    assert step["listeners"].keys() <= step["routes"].keys()
    assert used(step) <= step["clusters"].keys()
    assert len(ports(step)) == len(step["listeners"])


def used(step: Resources) -> set[str]:
    return {step["routes"][name]["cluster"] for name in step["listeners"]}


def ports(step: Resources) -> set[Any]:
    return {item["address"]["socket_address"]["port_value"] for item in step["listeners"].values()}
