"""Role local by its playbooks, on real processes: one mesh that the tests of this file change, load, break and reset.

    front -> a (2 replicas) -> b (2 replicas, health-checked)

All of it twice: with Envoys that read files, and with those that a control plane sends their configuration.
Each test begins with that mesh and leaves it behind; after one that failed, the next one repairs it first.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import pytest
from behaviour.load import Load
from behaviour.local_mesh import (
    TOOLS,
    Home,
    Mesh,
    Play,
    call,
    express,
    get,
    greeting,
    new_home,
    processes_of,
)
from behaviour.machine import free_port, started_with, wait_until

REFRESH_SECONDS = 1.1
"""How often Envoys ask for addresses, in the inventory of these tests."""
SLACK_SECONDS = 4
"""What a busy machine may take longer."""


@dataclass
class First:
    """The first run of a mesh, and what check mode said before it."""

    mesh: Mesh
    port: int
    predicted: Play
    untouched: bool
    play: Play


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with new_home() as home:
        yield home


@pytest.fixture(scope="module", params=["files", pytest.param("ads", marks=pytest.mark.thorough)])
def first(home: Home, request: pytest.FixtureRequest) -> Iterator[First]:
    mesh, port = home.mesh(), free_port()
    mesh.settings["mesh_config_delivery"] = request.param
    mesh.services = [
        express("a", replicas=2, upstreams=[{"service": "b", "port": 9001}]),
        express("b", replicas=2, health_check={"type": "http", "interval": "1s"}),
    ]
    mesh.fronts = [
        {"name": "front", "listeners": [{"port": port}], "routes": [{"prefix": "/", "service": "a"}]},
    ]
    tools_of = {"files": "sidecar-mesh", "ads": "sidecar-mesh/control-plane"}
    if not (TOOLS / tools_of[request.param] / "installed.json").exists():
        # Before there is an Envoy, check mode cannot say all.
        tools = home.mesh()
        tools.settings["mesh_config_delivery"] = request.param
        tools.must_run()
        tools.must_run("reset")
    predicted = mesh.must_run("site", "--check", "--diff")
    untouched = not mesh.state.exists() and not processes_of(mesh.state)
    play = mesh.must_run("site", "--diff")
    mesh.keep()
    yield First(mesh, port, predicted, untouched, play)
    # Linux lets a user watch few files.
    mesh.end()


@pytest.fixture
def port(first: First) -> int:
    return first.port


@pytest.fixture
def mesh(first: First) -> Mesh:
    first.mesh.back()
    return first.mesh


@contextlib.contextmanager
def listener(address: str, port: int) -> Iterator[None]:
    """Somebody else's."""
    with socket.create_server((address, port)):
        yield


def assert_predicted(predicted: Play, play: Play, before: dict[str, str], mesh: Mesh) -> None:
    """What check mode said is what the run did: programs, and files with their texts. ``before``: the files' texts.

    What a run takes away and puts back, such as the address of a replica that it restarts, is no change.
    """
    for key in ("started", "restarted", "stopped"):
        assert predicted.programs(key) == play.programs(key)
    said, done = (
        {path: text for path, text in run.files(mesh.state).items() if text != before.get(path, "")}
        for run in (predicted, play)
    )
    assert sorted(said) == sorted(done)
    assert said == done


def is_sent(mesh: Mesh) -> bool:
    """Whether a control plane sends the mesh's Envoys their configuration."""
    return "control-plane" in mesh.pids()


def same(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """Of the new processes, those by the names of the old ones: equal to these when none was restarted."""
    return {name: pid for name, pid in new.items() if name in old}


# The first run, the second, and the proof


def test_check_mode_on_an_empty_machine_says_what_the_first_run_does_and_does_nothing(first: First) -> None:
    assert first.untouched
    assert first.predicted.changed
    assert_predicted(first.predicted, first.play, {}, first.mesh)
    assert first.play.programs("started") == set(first.mesh.pids())


def test_a_second_run_changes_nothing(mesh: Mesh) -> None:
    before = mesh.files(), mesh.pids()
    play = mesh.must_run("site", "--diff")
    assert play.changed == []
    assert (mesh.files(), mesh.pids()) == before


def test_verify_proves_the_mesh_by_a_request_that_every_log_on_the_way_knows(mesh: Mesh, port: int) -> None:
    url = f"http://localhost:{port}/"
    mesh.checks = [
        {"name": "All of a", "url": url, "body": greeting("b"), "service": "a", "passes": ["front", "a", "b"]}
    ]
    before = mesh.files(), mesh.pids()
    play = mesh.must_run("verify")
    assert play.changed == []
    assert "All of a" in play.output
    assert (mesh.files(), mesh.pids()) == before

    request_id = get(port)[1]["x-request-id"]

    def logged() -> set[str]:
        return {name for name in mesh.envoys() if request_id in mesh.log(name)}

    wait_until(lambda: len(logged()) >= 3, "three access logs know the request")
    assert {re.sub(r"-\d", "", name) for name in logged()} == {"front.front", "a.sidecar", "b.sidecar"}
    assert len(logged()) == 3


def test_status_tells_of_every_replica_what_it_runs(mesh: Mesh) -> None:
    lines = [line.split() for line in mesh.status()]
    assert any(line[:2] == ["control-plane", "1/1"] for line in lines) == is_sent(mesh)
    replicas = [line[-7:] for line in lines if "ready" in line and "control-plane" not in line]
    assert [line[0] for line in replicas] == ["a-1", "a-2", "b-1", "b-2", "front-1"]
    assert {line[4] for line in replicas} == {"current"}


def test_every_log_is_rotated(mesh: Mesh) -> None:
    programs = (mesh.state / "programs.conf").read_text().split("\n[")[1:]
    assert len(programs) == len(mesh.pids())
    for program in programs:
        assert re.search(r"^stdout_logfile_maxbytes=\d+MB$", program, re.MULTILINE), program
        assert re.search(r"^stdout_logfile_backups=[1-9]$", program, re.MULTILINE), program
    assert re.search(r"^logfile_maxbytes=\d+MB$", (mesh.state / "supervisord.conf").read_text(), re.MULTILINE)


# Changes of what serves


@pytest.mark.thorough
def test_scales_up_and_down_as_predicted_without_a_failed_request(mesh: Mesh, port: int) -> None:
    before, files, texts = mesh.pids(), mesh.files(), mesh.texts()
    mesh.service("a")["replicas"] = 3
    predicted = mesh.predict()
    with Load(port, "/healthz", kept=6, new=3) as load:
        load.wait_for(300)
        play = mesh.must_run("site", "--diff")
        assert_predicted(predicted, play, texts, mesh)
        assert play.programs("started") == {"a-3.application", "a-3.sidecar"}
        assert same(before, mesh.pids()) == before

        published = (mesh.state / "zone.json").stat().st_mtime - load.began
        load.wait_until(lambda report: report.first("a-3"), "an answer of the new replica")
        assert load.report.first("a-3") < published + REFRESH_SECONDS + SLACK_SECONDS
        begin = load.now
        load.wait_for(900)
        counts = load.report.hostnames(begin)
        assert sorted(counts) == ["a-1", "a-2", "a-3"]
        assert min(counts.values()) > counts.total() / 5, counts

        mesh.service("a")["replicas"] = 2
        predicted, texts = mesh.predict(), mesh.texts()
        play = mesh.must_run("site", "--diff")
        assert_predicted(predicted, play, texts, mesh)
        assert play.programs("stopped") == {"a-3.application", "a-3.sidecar"}
        assert mesh.pids() == before
        assert mesh.files() == files
        load.wait_for(max(500, 10_000 - load.report.count))
    load.report.must_be_whole(10_000)


@pytest.mark.thorough
def test_every_kind_of_change_reaches_running_envoys_without_a_failed_request(mesh: Mesh, port: int) -> None:
    before, files, second_port = mesh.envoys(), mesh.files(), free_port()
    with Load(port) as load:
        load.wait_for(100)
        # A service with its route, an upstream, a listener of the front, another policy and other timeouts.
        call(mesh.service("a"), service="c", port=9002)
        mesh.service("a")["upstreams"][0] |= {"timeout": "7s", "lb_policy": "least_request"}
        mesh.services.append(express("c", port=8082, sidecar={"port": 8787}))
        mesh.front()["listeners"].append({"port": second_port})
        mesh.front()["routes"].insert(0, {"prefix": "/c", "service": "c"})
        play = mesh.must_run()
        assert play.programs("started") == {"c-1.application", "c-1.sidecar"}
        assert play.batches("restarted") == [{"a-1.application"}, {"a-2.application"}]
        assert same(before, mesh.envoys()) == before
        assert get(port)[2].split("\n  ")[1:] == [greeting("b"), f"{greeting('c')}\n"]
        assert get(second_port, "/c")[2] == f"{greeting('c')}\n"
        assert "LEAST_REQUEST" in mesh.admin("a-1", "/config_dump?resource=dynamic_active_clusters&name_regex=^b$")
        assert '"timeout": "7s"' in mesh.admin("a-2", "/config_dump?resource=dynamic_route_configs")
        load.wait_for(100)

        with Load(port, "/c", kept=1, new=1) as changed:
            changed.wait_for(50)
            # A route, a sidecar's port, and how the front finds a.
            mesh.front()["routes"][0]["service"] = "b"
            mesh.service("b")["sidecar"] = {"port": 8788}
            mesh.service("a")["discovery"] = "eds"
            play = mesh.must_run()
            assert play.programs("started") | play.programs("restarted") | play.programs("stopped") == set()
            assert same(before, mesh.envoys()) == before
            assert get(port, "/c")[2] == f"{greeting('b')}\n"
            socket.create_connection((mesh.address("b-1"), 8788), timeout=5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((mesh.address("b-1"), 8786), timeout=5)
            changed.wait_for(50)

            # The same of a, found by addresses in its callers' clusters.
            mesh.service("a")["discovery"] = "static"
            mesh.service("a")["sidecar"] = {"port": 8790}
            play = mesh.must_run()
            assert same(before, mesh.envoys()) == before
            assert f"{mesh.address('a-1')}:8790" in mesh.admin("front-1", "/clusters")
            assert get(port)[0] == 200
            changed.wait_for(50)
            assert "c-1" in changed.report.hostnames()
            assert "b-1" in changed.report.hostnames()

            # All of it back: c goes with its route, and what asked for /c meets the next route.
            mesh.back()
            load.wait_for(100)
            changed.wait_for(50)
        changed.report.must_be_whole()
    load.report.must_be_whole(500)
    assert mesh.envoys() == before
    assert mesh.files() == files
    assert not (mesh.state / "proxies" / "c-1").exists()
    assert greeting("c") not in get(port)[2]
    with pytest.raises(OSError, match="refused"):
        get(second_port)


def test_a_restart_reaches_one_replica_at_a_time_and_only_what_changed(mesh: Mesh, port: int) -> None:
    before, texts = mesh.pids(), mesh.texts()
    # The application must listen, and call its sidecar, on other ports than before.
    mesh.service("a")["environment"]["SERVICE_NAME"] = "another a"
    mesh.service("a")["port"] = 8091
    mesh.service("a")["upstreams"][0]["port"] = 9011
    mesh.service("b")["sidecar"] = {"concurrency": 2}
    predicted = mesh.predict()
    with Load(port) as load:
        load.wait_for(100)
        play = mesh.must_run("site", "--diff")
        load.wait_for(200)
    assert_predicted(predicted, play, texts, mesh)
    assert play.batches("restarted") == [
        {"a-1.application", "b-1.sidecar"},
        {"a-2.application", "b-2.sidecar"},
    ]
    after = mesh.pids()
    assert {name for name in before if after[name] != before[name]} == play.programs("restarted")
    assert get(port)[2] == f"{greeting('another a')}\n  {greeting('b')}\n"
    for gone in (8081, 9001):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((mesh.address("a-1"), gone), timeout=5)
    assert '"concurrency": 2' in mesh.admin("b-2", "/server_info")
    load.report.must_be_whole(300)


def test_what_envoy_refuses_at_validation_changes_nothing(mesh: Mesh) -> None:
    before = mesh.files(), mesh.pids()
    mesh.service("a")["upstreams"][0]["envoy_patch"] = {"cluster": {"lb_polizy": "RANDOM"}}
    play = mesh.run()
    assert play.code
    assert "lb_polizy" in play.failure
    assert "a-1: cds.yaml: resources[1] (b)" in play.failure
    assert (mesh.files(), mesh.pids()) == before


def test_what_envoy_refuses_while_it_runs_leaves_the_old_serving(mesh: Mesh, port: int) -> None:
    before, taken = (mesh.files(), mesh.pids()), free_port()
    # The first can be done and is done before the second is refused.
    mesh.service("b")["discovery"] = "eds"
    mesh.front()["routes"][0]["timeout"] = "8s"
    mesh.front()["listeners"][0]["envoy_patch"] = {
        "listener": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": taken}}}
    }
    with Load(port) as load:
        load.wait_for(50)
        with listener("127.0.0.1", taken):
            play = mesh.run()
            assert play.code
            assert f"127.0.0.1:{taken}" in play.failure
            assert "Address already in use" in play.failure
            assert "front-1" in play.failure
            assert (mesh.files(), mesh.pids()) == before
            load.wait_for(100)
        assert "8s" not in mesh.admin("front-1", "/config_dump?resource=dynamic_route_configs")

        # The next good run works, on what was put back.
        mesh.front()["listeners"][0].pop("envoy_patch")
        mesh.must_run()
        assert '"timeout": "8s"' in mesh.admin("front-1", "/config_dump?resource=dynamic_route_configs")
        load.wait_for(100)
    load.report.must_be_whole(250)


# What breaks


@pytest.mark.parametrize("program", ["a-1.application", "b-1.sidecar", "front-1.front", "dns"])
def test_what_is_killed_comes_back_by_itself(mesh: Mesh, port: int, program: str) -> None:
    before = mesh.pids()
    os.kill(before[program], signal.SIGKILL)
    wait_until(lambda: mesh.pids().get(program, before[program]) != before[program], f"{program} runs again")
    others = {name: pid for name, pid in before.items() if name != program}
    assert same(others, mesh.pids()) == others
    wait_until(lambda: answers(port), "the mesh answers")
    if program == "dns":
        wait_until(lambda: resolved(mesh) == {mesh.address("a-1"), mesh.address("a-2")}, "names are told")


def resolved(mesh: Mesh) -> set[str]:
    """What the mesh's DNS server says of service a."""
    arguments = started_with(mesh.pids()["dns"])[0]
    address, port = (arguments[arguments.index(option) + 1] for option in ("--address", "--port"))
    query = dns.message.make_query("a.default.svc.cluster.local", "A")
    with contextlib.suppress(OSError, dns.exception.Timeout):
        answer = dns.query.udp(query, address, port=int(port), timeout=1)
        return {record.address for records in answer.answer for record in records}
    return set()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return get(port)[0] == 200
    return False


def test_a_run_repairs_all_that_a_killed_supervisord_takes_with_it(mesh: Mesh, port: int) -> None:
    before, texts = mesh.pids(), mesh.texts()
    os.kill(mesh.supervisord(), signal.SIGKILL)
    wait_until(lambda: not processes_of(mesh.state), "no orphan is left")
    predicted = mesh.predict()
    play = mesh.must_run("site", "--diff")
    assert play.programs("started") == set(before)
    assert_predicted(predicted, play, texts, mesh)
    assert set(mesh.pids()) == set(before)
    assert get(port)[0] == 200


def test_a_run_repairs_a_mesh_after_a_reboot(mesh: Mesh, port: int) -> None:
    names = set(mesh.pids())
    os.kill(mesh.supervisord(), signal.SIGKILL)
    wait_until(lambda: not processes_of(mesh.state), "nothing runs")
    for name in ("supervisor.sock", "supervisord.pid"):
        (mesh.state / name).unlink()
    assert mesh.must_run().programs("started") == names
    assert get(port)[0] == 200


# What cannot be


@pytest.fixture
def refusing(mesh: Mesh, port: int) -> Iterator[Mesh]:
    """A mesh that a test cannot change, and that serves on."""
    before = mesh.files(), mesh.pids()
    yield mesh
    assert (mesh.files(), mesh.pids()) == before
    assert get(port)[0] == 200


def test_ports_in_use_are_named_with_their_holder(refusing: Mesh) -> None:
    local, everywhere = free_port(), free_port()
    refusing.front()["listeners"] += [{"port": local}, {"port": everywhere}]
    with listener("127.0.0.1", local), listener("0.0.0.0", everywhere):
        play = refusing.run()
    assert play.code
    lines = play.failure.splitlines()
    assert len(lines) == 2, play.failure
    for line, port, address in ((lines[0], local, "127.0.0.1"), (lines[1], everywhere, "0.0.0.0")):
        assert line.startswith(f"mesh_front_proxies (front): front port: {port}: front-1 needs tcp 127.0.0.1:{port}, ")
        assert f"pid {os.getpid()} (" in line
        assert f"on {address}:{port}; " in line
        assert line.endswith("stop that process, or choose another port")


def test_more_files_than_linux_lets_envoys_watch_are_refused(refusing: Mesh) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    if limit > 500:
        pytest.skip(f"fs.inotify.max_user_instances is {limit}: more than the test can reach with 250 replicas")
    refusing.services.append(express("d", replicas=limit // 2))
    play = refusing.run()
    assert play.code
    assert play.failure.startswith(f"fs.inotify.max_user_instances: {limit}: the Envoys of this mesh need ")
    assert "(sudo sysctl fs.inotify.max_user_instances=" in play.failure


def test_a_missing_binary_is_named_with_its_variable(refusing: Mesh) -> None:
    refusing.services.append({"name": "d", "port": 8081, "command": ["no-such-program", "--serve"]})
    play = refusing.run()
    assert play.code
    assert "no-such-program" in play.failure
    assert "mesh_services (d): command" in play.failure


def test_a_process_that_dies_at_start_shows_its_last_words(refusing: Mesh) -> None:
    command = ["node", "-e", "console.error('the database is on fire'); process.exit(3)"]
    refusing.services.append({"name": "d", "port": 8081, "command": command})
    refusing.services.append(express("e", port=8083))
    play = refusing.run()
    assert play.code
    assert "d-1.application: FATAL, exit status 3" in play.failure
    assert "the database is on fire" in play.failure
    assert "nothing was changed" in play.failure


def test_five_mistakes_are_one_message(refusing: Mesh) -> None:
    refusing.service("a")["replicas"] = "two"
    refusing.service("a")["upstreams"][0]["timeout"] = "soon"
    refusing.service("b")["lb_polici"] = "random"
    refusing.front()["routes"][0]["prefix"] = "no/slash"
    del refusing.front()["listeners"][0]["port"]
    play = refusing.run()
    assert play.code
    assert "The mesh inventory has 5 problems:" in play.failure
    for problem in (
        "mesh_services[0].replicas: 'two' is not allowed; give a whole number from 0 to 250",
        "mesh_services[0].upstreams[0].timeout: 'soon' is not allowed; give a time such as 250ms, 2s, 1m or 1h",
        "mesh_services[1].lb_polici: unknown key, did you mean 'lb_policy'?",
        "mesh_front_proxies[0].routes[0].prefix: 'no/slash' is not allowed; give a path starting with '/'",
        "mesh_front_proxies[0].listeners[0].port: is missing; give a whole number from 1 to 65535",
    ):
        assert problem in play.failure


def test_a_folder_that_cannot_be_written_is_named(home: Home) -> None:
    """As an ordinary user, who may read everything here, Ansible included, and write next to nothing."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("there is no setpriv on this machine to become an ordinary user")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    reader = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    mesh = home.mesh()
    mesh.services = [express("a")]
    mesh.settings["local_python"] = "/bin/sh"  # one that an ordinary user can surely run
    locked, temporary = home.folder / "locked", home.folder / "nobody"
    locked.mkdir(mode=0o555)
    temporary.mkdir()
    temporary.chmod(0o777)
    places = dict.fromkeys(["XDG_STATE_HOME", "XDG_DATA_HOME"], str(locked))
    places |= dict.fromkeys(["HOME", "ANSIBLE_HOME", "ANSIBLE_REMOTE_TEMP"], str(temporary))
    prefix = [*nobody, *reader, "--"] if os.geteuid() == 0 else []
    play = mesh.run("site", prefix=prefix, USER="nobody", **places)
    assert play.code
    folder = locked / "sidecar-mesh"
    problem = f"cannot be written by user nobody, since nothing can be made in {locked}; choose another folder"
    assert play.failure.splitlines() == [
        f"local_state_path: {folder / mesh.name}: {problem}, or make it writable",
        f"local_data_path: {folder}: {problem}, or make it writable",
    ]
    assert list(locked.iterdir()) == []


# The end


def test_meshes_side_by_side_and_a_reset_that_leaves_the_other(home: Home, mesh: Mesh, port: int) -> None:
    other, other_port = home.mesh(), free_port()
    other.services = [express("a")]
    other.fronts = [{**mesh.front(), "listeners": [{"port": other_port}]}]
    before = mesh.files(), mesh.pids()
    other.must_run()
    assert (mesh.files(), mesh.pids()) == before
    assert greeting("b") not in get(other_port)[2]
    assert greeting("b") in get(port)[2]

    serving = other.pids()
    with Load(other_port, kept=1, new=1) as load:
        play = mesh.must_run("reset")
        load.wait_for(50)
    load.report.must_be_whole()
    assert play.changed
    assert processes_of(mesh.state) == []
    assert not mesh.state.exists()
    with pytest.raises(OSError, match="refused"):
        get(port)
    assert other.pids() == serving
    assert mesh.must_run("reset").changed == []
    other.must_run("reset")
    assert processes_of(other.state) == []
    assert not home.states.exists()
