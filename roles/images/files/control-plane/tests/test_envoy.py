# SPDX-License-Identifier: GPL-3.0-or-later
"""Real Envoys that get everything from a real server, under load where something could be lost."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mesh import (
    Envoy,
    Load,
    Mesh,
    cluster,
    envoy_programs,
    free_port,
    get,
    listener,
    resources,
    routes,
    running,
    wait_until,
)

LOAD_SECONDS = 0.4


@pytest.fixture(params=envoy_programs(), ids=lambda path: Path(path).parents[5].name)
def program(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(params=["delta", "sotw"])
def mesh(request: pytest.FixtureRequest, program: str, tmp_path: Path) -> Iterator[Mesh]:
    with running(tmp_path, program, request.param) as made:
        yield made


@pytest.fixture
def delta(program: str, tmp_path: Path) -> Iterator[Mesh]:
    with running(tmp_path, program, "delta") as made:
        yield made


def started(mesh: Mesh, port: int, wanted: Any) -> Envoy:
    """An Envoy of proxy a that serves what is wanted."""
    mesh.server.write(a=wanted)
    mesh.server.start()
    envoy = mesh.envoy("a")
    wait_until(lambda: get(port)[0] == 200, "Envoy serves requests")
    mesh.server.wait_synced("a")
    return envoy


def test_endpoints_change(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    envoy = started(mesh, port, resources(port, "b", {"b": [b.port]}))
    load = Load(port)
    times = []
    for turn in range(10):
        to = (c, b)[turn % 2]
        updates = envoy.stat("cluster.b.update_success")
        mesh.server.write(a=resources(port, "b", {"b": [to.port]}))
        begin = time.monotonic()
        wait_until(lambda old=updates: envoy.stat("cluster.b.update_success") > old, "Envoy has the endpoints")
        times.append(time.monotonic() - begin)
    answers = load.stop()
    assert set(answers) == {"b", "c"}
    assert load.opened == 4
    assert sorted(times)[5] < 0.1 + 0.05, "the server looks at its file every 50 ms"
    assert mesh.server.metric('pushes_total{type="clusters"}') == 1
    assert mesh.server.metric('pushes_total{type="endpoints"}') == 11


def test_a_route_changes_on_connections_that_stay_open(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    clusters = {"b": [b.port], "c": [c.port]}
    started(mesh, port, resources(port, "b", clusters))
    load = Load(port)
    for turn in range(6):
        time.sleep(LOAD_SECONDS / 4)
        mesh.server.write(a=resources(port, "cb"[turn % 2], clusters))
    time.sleep(LOAD_SECONDS)
    assert set(load.stop()) == {"b", "c"}
    assert load.opened == 4
    assert get(port) == (200, "b")


def test_a_cluster_takes_the_place_of_another(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    envoy = started(mesh, port, resources(port, "b", {"b": [b.port]}))
    load = Load(port)
    for turn in range(10):
        name, upstream = (("c", c), ("b", b))[turn % 2]
        mesh.server.write(a=resources(port, name, {name: [upstream.port]}))
        wait_until(lambda wanted=name: get(port) == (200, wanted), f"requests go to {name}")
        time.sleep(LOAD_SECONDS / 4)
    answers = load.stop()
    assert set(answers) == {"b", "c"}
    assert answers.total() > 1000
    mesh.server.wait_synced("a")
    assert envoy.stat("cluster_manager.active_clusters") == 2


def test_a_cluster_changes(mesh: Mesh) -> None:
    """It warms again, and gets its endpoints though they are the same: without them Envoy waits for 15 s."""
    b, port = mesh.upstream("b"), free_port()
    wanted = resources(port, "b", {"b": [b.port]})
    started(mesh, port, wanted)
    load = Load(port)
    for turn in range(5):
        wanted["clusters"]["b"] = cluster("b", connect_timeout=f"{turn + 2}s")
        version = mesh.server.status()["configuration"]["version"]
        mesh.server.write(a=wanted)
        wait_until(lambda old=version: mesh.server.status()["configuration"]["version"] != old, "the server has it")
        begin = time.monotonic()
        mesh.server.wait_synced("a")
        assert time.monotonic() - begin < 2
    assert set(load.stop()) == {"b"}


def test_a_listener_comes_and_another_goes(mesh: Mesh) -> None:
    b, port, other = mesh.upstream("b"), free_port(), free_port()
    wanted = resources(port, "b", {"b": [b.port]})
    started(mesh, port, wanted)
    wanted["listeners"] = {"in": listener("in", port), "new": listener("new", other)}
    wanted["routes"] = {name: routes(name, "b") for name in ("in", "new")}
    mesh.server.write(a=wanted)
    wait_until(lambda: get(other) == (200, "b"), "the new listener answers")
    del wanted["listeners"]["in"], wanted["routes"]["in"]
    mesh.server.write(a=wanted)
    wait_until(lambda: set(mesh.server.connected("a")["types"]) and _refuses(port), "the old one is gone")
    assert get(other) == (200, "b")


def test_a_port_changes_its_owner(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    wanted = resources(port, "b", {"b": [b.port], "c": [c.port]})
    started(mesh, port, wanted)
    wanted["listeners"], wanted["routes"] = {"new": listener("new", port)}, {"new": routes("new", "c")}
    mesh.server.write(a=wanted)
    wait_until(lambda: get(port) == (200, "c"), "the other listener has the port")
    assert not mesh.server.connected("a")["types"]["listeners"]["nack"]


def test_the_server_goes_and_comes_back(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    clusters = {"b": [b.port], "c": [c.port]}
    started(mesh, port, resources(port, "b", clusters))
    load = Load(port)
    mesh.server.kill()
    time.sleep(LOAD_SECONDS)
    mesh.server.start()
    wait_until(lambda: mesh.server.connected("a"), "Envoy is back")
    time.sleep(0.5)
    mesh.server.wait_synced("a")
    pushed = {
        kind: mesh.server.metric(f'pushed_resources_total{{type="{kind}"}}') for kind in ("clusters", "listeners")
    }
    assert pushed == {"clusters": 0, "listeners": 0}
    named = {kind: mesh.server.metric(f'pushed_resources_total{{type="{kind}"}}') for kind in ("endpoints", "routes")}
    # Only the incremental protocol tells what an Envoy has of these.
    assert named == ({"endpoints": 0, "routes": 0} if mesh.protocol == "delta" else {"endpoints": 2, "routes": 1})
    mesh.server.write(a=resources(port, "c", clusters))
    wait_until(lambda: get(port) == (200, "c"), "changes arrive again")
    assert set(load.stop()) == {"b", "c"}


def test_what_changed_meanwhile_comes_make_before_break(delta: Mesh) -> None:
    b, c, port = delta.upstream("b"), delta.upstream("c"), free_port()
    started(delta, port, resources(port, "b", {"b": [b.port]}))
    load = Load(port)
    for name, upstream in (("c", c), ("b", b), ("c", c)):
        assert delta.server.stop() == 0
        delta.server.write(a=resources(port, name, {name: [upstream.port]}))
        delta.server.start()
        wait_until(lambda wanted=name: get(port) == (200, wanted), f"requests go to {name}")
        delta.server.wait_synced("a")
    assert set(load.stop()) == {"b", "c"}
    assert delta.server.metric('pushed_resources_total{type="listeners"}') == 0


def _nack(mesh: Mesh, kind: str) -> Any:
    return wait_until(lambda: mesh.server.connected("a")["types"][kind]["nack"], f"a NACK of {kind}")


def test_a_bad_route_is_refused_and_the_old_one_stays(mesh: Mesh) -> None:
    b, port = mesh.upstream("b"), free_port()
    wanted = resources(port, "b", {"b": [b.port]})
    started(mesh, port, wanted)
    good = dict(wanted["routes"])
    wanted["routes"] = {"in": routes("in", "b", domains=("*", "*"))}
    mesh.server.write(a=wanted)
    nack = _nack(mesh, "routes")
    assert nack["resources"] == ["in"]
    assert "Only unique values for domains" in nack["message"] or "wildcard" in nack["message"]
    time.sleep(0.5)
    assert mesh.server.metric('nacks_total{type="routes"}') == 1, "it is not sent again"
    found = mesh.server.connected("a")
    assert (found["synced"], found["types"]["routes"]["refused"]) == (False, ["in"])
    assert get(port) == (200, "b")
    wanted["routes"] = good
    mesh.server.write(a=wanted)
    wait_until(lambda: mesh.server.connected("a")["synced"], "the correction is there")
    assert mesh.server.connected("a")["types"]["routes"]["refused"] == []


def test_a_port_in_use_is_refused_and_the_rest_is_served(mesh: Mesh) -> None:
    b, port, other = mesh.upstream("b"), free_port(), free_port()
    wanted = resources(port, "b", {"b": [b.port]})
    started(mesh, port, wanted)
    wanted["listeners"] |= {"bad": listener("bad", b.port), "good": listener("good", other)}
    wanted["routes"] |= {name: routes(name, "b") for name in ("bad", "good")}
    mesh.server.write(a=wanted)
    nack = _nack(mesh, "listeners")
    assert nack["resources"] == ["bad"]
    assert "bind" in nack["message"] or "in use" in nack["message"]
    wait_until(lambda: get(other) == (200, "b"), "the other new listener answers")
    time.sleep(0.3)
    assert mesh.server.metric('nacks_total{type="listeners"}') <= 2
    assert mesh.server.connected("a")["types"]["listeners"]["refused"] == ["bad"]
    assert get(port) == (200, "b")


def test_a_bad_cluster_keeps_the_routes_to_it_back(mesh: Mesh) -> None:
    b, c, port = mesh.upstream("b"), mesh.upstream("c"), free_port()
    wanted = resources(port, "b", {"b": [b.port]})
    started(mesh, port, wanted)
    wanted = resources(port, "c", {"b": [b.port], "c": [c.port]})
    wanted["clusters"]["c"] = cluster(
        "c", lb_policy="RING_HASH", ring_hash_lb_config={"minimum_ring_size": 9, "maximum_ring_size": 2}
    )
    load = Load(port)
    mesh.server.write(a=wanted)
    assert _nack(mesh, "clusters")["resources"] == ["c"]
    time.sleep(LOAD_SECONDS)
    assert set(load.stop()) == {"b"}
    assert mesh.server.metric('pushes_total{type="routes"}') == 1


def test_two_proxies_change_in_step(mesh: Mesh) -> None:
    """The caller is told of the callee's new port when the callee listens on it."""
    c, port, old, new = mesh.upstream("c"), free_port(), free_port(), free_port()
    caller = resources(port, "b", {"b": [old]})
    mesh.server.write(b=resources(old, "c", {"c": [c.port]}))
    envoy = started_pair(mesh, port, caller)
    load = Load(port)
    for turn in range(6):
        before, after = ((old, new), (new, old))[turn % 2]
        moved = resources(after, "c", {"c": [c.port]})
        moved["listeners"] = {f"in{after}": listener(f"in{after}", after)}
        moved["routes"] = {f"in{after}": routes(f"in{after}", "c")}
        mesh.server.write(b=moved, a=resources(port, "b", {"b": [after]}))
        wait_until(lambda gone=before: _refuses(gone), "the old port is free")
        mesh.server.wait_synced("a", "b")
    answers = load.stop()
    assert set(answers) == {"c"}
    assert answers.total() > 200
    assert envoy


def started_pair(mesh: Mesh, port: int, caller: Any) -> Envoy:
    mesh.server.write(a=caller)
    mesh.server.start()
    mesh.envoy("b")
    envoy = mesh.envoy("a")
    wait_until(lambda: get(port)[0] == 200, "both Envoys serve requests")
    mesh.server.wait_synced("a", "b")
    return envoy


def _refuses(port: int) -> bool:
    try:
        get(port)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False
