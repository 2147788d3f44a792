# SPDX-License-Identifier: GPL-3.0-or-later
"""What the cluster says becomes what is sent."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.control_plane import published
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from control_plane import cluster, sources
from control_plane.folders import Folder
from control_plane.metrics import Metrics
from control_plane.sources import MeshSource, follow_machine
from control_plane.store import Store

SUFFIX = "default.svc.cluster.local"


def files(workload: str, timeout: str = "1s") -> dict[str, str]:
    upstreams = [{"service": "b", "port": 9001, "timeout": timeout}]
    services = [{"name": "a", "port": 8081, "upstreams": upstreams}, {"name": "b", "port": 8082}]
    return next(dict(item["files"]) for item in mesh_files(build_model(services)) if item["name"] == workload)


def endpoint(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "conditions": conditions}


def endpoint_slice(service: str, *endpoints: dict[str, Any], kind: str = "IPv4") -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": service}
    return {"metadata": {"name": f"{service}-x", "labels": labels}, "addressType": kind, "endpoints": list(endpoints)}


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, [{"address": "10.0.0.1"}]),
        ({"ready": True, "serving": True, "terminating": False}, [{"address": "10.0.0.1"}]),
        ({"ready": False, "serving": False, "terminating": False}, []),
        ({"ready": False, "serving": True, "terminating": True}, [{"address": "10.0.0.1", "health": "DRAINING"}]),
        ({"ready": False, "serving": False, "terminating": True}, []),
    ],
)
def test_replicas_that_end_get_nothing_new_and_others_must_be_ready(conditions: Any, expected: Any) -> None:
    found = cluster.replicas(endpoint_slice("b", endpoint("10.0.0.1", **conditions)), SUFFIX)
    assert found == {f"b.{SUFFIX}": expected}


def test_replicas_of_all_slices_of_a_service() -> None:
    slices = [endpoint_slice("b", endpoint("10.0.0.1")), endpoint_slice("b", endpoint("10.0.0.2"))]
    slices += [endpoint_slice("b", endpoint("fd00::1"), kind="IPv6"), endpoint_slice("c")]
    found = cluster.together(cluster.replicas(item, SUFFIX) for item in slices)
    assert found == {f"b.{SUFFIX}": [{"address": "10.0.0.1"}, {"address": "10.0.0.2"}], f"c.{SUFFIX}": []}


def test_configurations_are_told_from_other_config_maps() -> None:
    labels = {"app.kubernetes.io/name": "a"}
    maps = [
        {"metadata": {"name": "a-envoy-1", "labels": labels}, "data": {"cds.yaml": "x"}},
        {"metadata": {"name": "other", "labels": labels}, "data": {"ca.crt": "x"}},
        {"metadata": {"name": "empty", "labels": labels}},
    ]
    kept = [cluster.folder(item) for item in maps]
    assert kept == [Folder.of("a", {"cds.yaml": "x"}), None, None]
    assert kept[0].files == {"cds.yaml": "x"}


async def rest(*others: asyncio.Task[Any]) -> None:
    """Until all that has begun is done, but for these."""
    await asyncio.sleep(0.02)
    while begun := asyncio.all_tasks() - {asyncio.current_task(), *others}:
        await asyncio.wait(begun)


def follow(*said: Callable[[MeshSource], None]) -> tuple[Store, MeshSource, list[list[str]]]:
    """A source that is told these, with time to act after each; which proxies changed each time."""
    changes: list[list[str]] = []

    async def told() -> tuple[Store, MeshSource]:
        store = Store(lambda _seconds, _function: lambda: None)
        source = MeshSource(store, Metrics(), SUFFIX)
        before: dict[str, str] = {}
        for say in said:
            say(source)
            await rest()
            after = {name: proxy.version for name, proxy in store.proxies.items()}
            changes.append(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
            before = after
        return store, source

    store, source = asyncio.run(told())
    return store, source, changes


REPLICAS = {f"b.{SUFFIX}": [{"address": "10.0.0.1"}]}
BOTH = {"a-1": Folder.of("a", files("a")), "b-1": Folder.of("b", files("b"))}


def test_nothing_is_sent_before_both_are_known() -> None:
    store, _source, changes = follow(lambda source: source.folders(BOTH), lambda source: source.replicas(REPLICAS))
    assert changes == [[], ["a-1", "b-1"]]
    assert {*store.proxies["a-1"].snapshot["endpoints"]} == {"b"}


def test_only_callers_are_sent_a_service_that_moved() -> None:
    moved = {f"b.{SUFFIX}": [{"address": "10.0.0.2"}], f"x.{SUFFIX}": [{"address": "10.0.0.3"}]}
    _store, _source, changes = follow(
        lambda source: source.folders(BOTH),
        lambda source: source.replicas(REPLICAS),
        lambda source: source.replicas(moved),
    )
    assert changes[-1] == ["a-1"]


def test_a_configuration_that_comes_changes_or_goes() -> None:
    changed = {**BOTH, "a-1": Folder.of("a", files("a", timeout="9s")), "a-2": Folder.of("a", files("a"))}
    _store, _source, changes = follow(
        lambda source: source.replicas(REPLICAS),
        lambda source: source.folders(BOTH),
        lambda source: source.folders(changed),
        lambda source: source.folders({"b-1": BOTH["b-1"]}),
    )
    assert changes == [[], ["a-1", "b-1"], ["a-1", "a-2"], ["a-1", "a-2"]]


def test_what_cannot_be_sent_leaves_what_is_served() -> None:
    broken = {**BOTH, "a-1": Folder.of("a", {**files("a"), "cds.yaml": "resources: [{name: b, nonsense: 1}]"})}
    store, source, changes = follow(
        lambda source: source.replicas(REPLICAS),
        lambda source: source.folders(BOTH),
        lambda source: source.folders(broken),
    )
    assert changes[-1] == []
    assert "a-1" in str(source.problem)
    assert set(store.proxies) == {"a-1", "b-1"}


def test_others_have_their_turn_while_many_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "BUSY_SECONDS", 0.0)
    many = {f"a-{number}": Folder.of("a", files("a", timeout=f"{number + 1}s")) for number in range(20)}
    turns = 0

    async def load() -> Store:
        nonlocal turns
        store = Store(lambda _seconds, _function: lambda: None)
        source = MeshSource(store, Metrics(), SUFFIX)
        source.folders(many)
        source.replicas(REPLICAS)
        while not store.is_loaded:
            turns += 1
            if turns == 10:
                # What comes meanwhile is not lost.
                source.replicas({f"b.{SUFFIX}": [{"address": "10.0.0.9"}]})
            await asyncio.sleep(0)
        await rest()
        return store

    store = asyncio.run(load())
    assert turns > len(many)
    assert set(store.proxies) == set(many)
    sent = {proxy.snapshot["endpoints"]["b"].value for proxy in store.proxies.values()}
    assert len(sent) == 1
    assert b"10.0.0.9" in sent.pop()


# On one machine


class Machine:
    """The folders and files of a mesh on one machine, as the playbook writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proxies: dict[str, Any] = {}
        (folder / "control-plane").mkdir()

    def publish(self, **proxies: dict[str, str]) -> None:
        """Folders first, then the file that tells of them."""
        for name, content in proxies.items():
            place = self.folder / name
            place.mkdir(exist_ok=True)
            for file, text in content.items():
                (place / file).write_text(text)
            self.proxies[name] = published({"workload": name[0], "folder": str(place)}, content)
        self.replace("control-plane/published.json", {"proxies": self.proxies})

    def zone(self, *addresses: str) -> None:
        self.replace("zone.json", {"records": {f"b.{SUFFIX}": addresses}})

    def replace(self, path: str, data: Any) -> None:
        draft = self.folder / ".draft"
        draft.write_text(data if isinstance(data, str) else json.dumps(data))
        draft.rename(self.folder / path)


def on_machine(machine: Machine, *acts: Callable[[], Any]) -> tuple[Store, MeshSource, list[list[str]]]:
    """What follows the machine's files, after these acts; which proxies changed each time."""
    changes: list[list[str]] = []

    async def followed() -> tuple[Store, MeshSource]:
        store = Store(lambda _seconds, _function: lambda: None)
        source = MeshSource(store, Metrics(), SUFFIX)
        files = machine.folder / "control-plane" / "published.json", machine.folder / "zone.json"
        following = asyncio.create_task(follow_machine(source, *files))
        before: dict[str, str] = {}
        for act in (lambda: None, *acts):
            act()
            await rest(following)
            after = {name: proxy.version for name, proxy in store.proxies.items()}
            changes.append(sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name)))
            before = after
        following.cancel()
        return store, source

    store, source = asyncio.run(followed())
    return store, source, changes


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.zone("127.1.1.1")
    made.publish(**{"a-1": files("a"), "b-1": files("b")})
    return made


def test_what_changes_on_a_machine_is_sent_to_whom_it_concerns(machine: Machine) -> None:
    store, source, changes = on_machine(
        machine,
        lambda: machine.zone("127.1.1.1", "127.1.1.2"),
        lambda: machine.publish(**{"a-1": files("a", timeout="9s")}),
        lambda: machine.publish(**{"a-2": files("a")}),
    )
    assert changes == [["a-1", "b-1"], ["a-1"], ["a-1"], ["a-2"]]
    assert source.problem is None
    assert store.proxies["a-1"].content == machine.proxies["a-1"]["content"]


def test_a_folder_that_is_half_written_is_not_sent(machine: Machine) -> None:
    """As after a run that was interrupted: what is served stays, and one that was never whole is not known."""
    (machine.folder / "a-1" / "cds.yaml").write_text("resources: []")
    store, source, changes = on_machine(
        machine, (machine.folder / "b-1" / "lds.yaml").unlink, lambda: machine.zone("127.1.1.9")
    )
    assert changes == [["b-1"], [], []]
    assert source.problem == "not as they were published: a-1; run the playbook again"
    assert store.proxies["b-1"].content == machine.proxies["b-1"]["content"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"proxies": {"a-1": {}}}', '{"proxies": 1}'])
def test_a_file_that_is_none_leaves_what_is_served(machine: Machine, text: str) -> None:
    store, source, changes = on_machine(machine, lambda: machine.replace("control-plane/published.json", text))
    assert changes == [["a-1", "b-1"], []]
    assert source.problem
    assert set(store.proxies) == {"a-1", "b-1"}


def test_a_mesh_without_a_proxy_is_served_too(tmp_path: Path) -> None:
    empty = Machine(tmp_path)
    empty.zone()
    empty.publish()
    store, source, _changes = on_machine(empty)
    assert store.is_loaded
    assert source.problem is None


def test_nothing_is_served_before_something_is_published(tmp_path: Path) -> None:
    empty = Machine(tmp_path)
    store, source, _changes = on_machine(empty)
    assert not store.is_loaded
    assert "published.json" in str(source.problem) or "zone.json" in str(source.problem)
