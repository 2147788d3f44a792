"""Role k3s on two bare nodes, with the stand-in in k3s' place: what it does, what it refuses, and what it leaves.

Each test begins with the nodes as it needs them; they are in an order in which most find them so.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from pathlib import Path

import pytest
import yaml
from behaviour.machine import wait_until

from nodes import fleet, stand_in
from nodes.image import build
from nodes.places import Node
from nodes.site import Run, Site, state
from nodes.stand_in import NEWER, VERSION, Releases

PROGRAM = "/usr/local/bin/k3s"
FAKE_TIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"


@pytest.fixture
def site(pair: Site) -> Site:
    """An inventory that says as little as it can."""
    pair.variables = {
        "k3s_binary": str(stand_in.build()),
        "k3s_network": "flannel",
        "k3s_timeout": 60,
    }
    pair.of_hosts = {}
    return pair


@pytest.fixture
def bare(site: Site) -> Site:
    """Nodes on which nothing is installed."""
    for node in site.fleet.nodes:
        if (
            not fleet.running(node)
            or fleet.on(node, "sh", "-c", f"ls -d {PROGRAM} /etc/rancher /etc/altered 2>&1 || true").count("No such")
            < 3
        ):
            fleet.create(node, build())
            fleet.wait(node)
    return site


@pytest.fixture
def installed(site: Site) -> Site:
    """A cluster of both."""
    if any(not _active(node) for node in site.fleet.nodes):
        site.must_run("k3s")
    return site


@pytest.fixture
def server(pair: Site) -> Node:
    return pair.fleet.node("server-1")


@pytest.fixture
def agent(pair: Site) -> Node:
    return pair.fleet.node("agent-1")


def _active(node: Node) -> bool:
    unit = "k3s" if node.kind == "server" else "k3s-agent"
    return "active" in fleet.on(node, "sh", "-c", f"systemctl is-active {unit} || true").split()


def states(site: Site) -> list[str]:
    return [state(node) for node in site.fleet.nodes]


def refused(site: Site, *options: str) -> Run:
    """A run that fails and leaves everything as it was."""
    before = states(site)
    run = site.run("k3s", *options)
    assert run.code != 0
    assert run.failure
    for node, now, then in zip(site.fleet.nodes, states(site), before, strict=True):
        assert now.splitlines() == then.splitlines(), f"{node.name} has changed"
    return run


# Bare nodes


def test_check_mode_on_bare_nodes_tells_what_would_be_and_changes_nothing(bare: Site) -> None:
    before = states(bare)
    run = bare.must_run("k3s", "--check", "--diff")
    assert states(bare) == before
    assert not bare.kubeconfig.exists()
    assert "server-1 would get k3s" in run.said()
    assert "begin a cluster (sqlite) as server" in run.said()
    assert "join server-1 as agent" in run.said()
    assert "server-1: Copy the binary" in run.changed
    assert "agent-1: Write the unit" in run.changed


def test_all_that_is_in_the_way_is_told_at_once(bare: Site, server: Node, agent: Node) -> None:
    bare.variables |= {"k3s_binary": str(stand_in.build(architecture="arm64")), "k3s_network": "cilium"}
    for node in (server, agent):
        fleet.write(node, "/etc/altered", "")
    fleet.on(server, "systemd-run", "--quiet", "python3", "-m", "http.server", "6443")
    fleet.on(server, "ip", "link", "add", "lan0", "type", "bridge")
    fleet.on(server, "ip", "address", "add", "10.42.7.1/24", "dev", "lan0")
    fleet.on(server, "ip", "link", "set", "lan0", "up")
    # Whoever logs in at the agent meets an older kernel, and who becomes root another time.
    fleet.on(agent, "mkdir", "/etc/systemd/system/ssh.service.d")
    older = "[Service]\nExecStart=\nExecStart=/usr/bin/setarch --uname-2.6 /usr/sbin/sshd -D\n"
    fleet.write(agent, "/etc/systemd/system/ssh.service.d/older.conf", older)
    fleet.write(agent, "/etc/sudoers.d/clock", "Defaults env_file=/etc/clock\n")
    fleet.write(agent, "/etc/clock", f"LD_PRELOAD={FAKE_TIME}\nFAKETIME=+10m\n")
    fleet.on(agent, "systemctl", "daemon-reload")
    fleet.on(agent, "systemctl", "restart", "ssh")
    # Who is logged in stays so, and Ansible keeps its connections.
    fleet.on(agent, "sh", "-c", "pkill -u admin || true")
    fleet.wait(agent)

    told = refused(bare).failure
    built = re.escape(f"k3s_binary: {bare.variables['k3s_binary']}: was built for aarch64, and the node is x86_64")
    for host, problem, remedy in (
        ("server-1", r"port 6443: is held by .*python3.*", "stop that process"),
        ("server-1", built, "name another file"),
        ("agent-1", built, "name another file"),
        ("agent-1", r"kernel: 2\.6\.\S+: Cilium needs 5\.10 at least", "install a newer one"),
        ("agent-1", r"clock: is (59\d|6\d\d) s ahead of", "timedatectl set-ntp true"),
    ):
        assert re.search(f"^{host}: {problem}.*{remedy}", told, re.M), (problem, told)
    overlap = (
        r"10\.42\.0\.0/16: overlaps with the network 10\.42\.7\.0/24 \(interface lan0\) of server-1.*choose another"
    )
    assert re.search(f"^k3s_cluster_cidr: {overlap}", told, re.M), told
    assert told.startswith("Nothing was changed.")


def test_what_is_not_what_was_released_is_not_installed(bare: Site, releases: Releases, server: Node) -> None:
    del bare.variables["k3s_binary"]
    bare.variables |= {"k3s_mirror": releases.url, "k3s_version": VERSION}
    good = releases.files[f"/{VERSION}/k3s"]
    releases.files[f"/{VERSION}/k3s"] = good[:-1] + b"x"
    try:
        for given, remedy in (
            ("", "look after k3s_mirror"),
            (secrets.token_hex(32), "k3s_checksum: give that of this version"),
        ):
            bare.variables["k3s_checksum"] = given
            run = bare.run("k3s")
            assert run.code != 0
            assert "checksum" in run.failure
            assert f"{PROGRAM} was not changed" in run.failure
            assert remedy in run.failure
            assert (
                fleet.on(server, "sh", "-c", f"ls {PROGRAM} /etc/systemd/system/k3s.service 2>/dev/null || true") == ""
            )
    finally:
        releases.files[f"/{VERSION}/k3s"] = good
    bare.variables |= {"k3s_checksum": "", "k3s_version": "v1.34.99+k3s1"}
    run = bare.run("k3s")
    assert run.code != 0
    assert "k3s_version: v1.34.99+k3s1 may not exist at k3s_mirror" in run.failure


# From the first run to the last


def test_a_run_that_is_cut_off_is_completed_by_the_next(bare: Site, releases: Releases) -> None:
    """By channel, from a mirror, beside another cluster in the user's kubeconfig."""
    other = {"apiVersion": "v1", "kind": "Config", "current-context": "work", "preferences": {}}
    for kind, what in (
        ("clusters", {"server": "https://work.example.com"}),
        ("contexts", {"cluster": "work", "user": "work"}),
        ("users", {"token": "t"}),
    ):
        other[kind] = [{"name": "work", kind.removesuffix("s"): what}]
    bare.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
    bare.kubeconfig.write_text(yaml.safe_dump(other))
    del bare.variables["k3s_binary"]
    bare.variables |= {
        "k3s_mirror": releases.url,
        "k3s_channel": "stable",
        "k3s_channel_url": f"{releases.url}/channels",
    }
    for task in (
        "Download it, and compare its sum",
        "Write the unit",
        "Ask whether it is ready",
        "Write the token",
    ):
        with bare.until("k3s", task):
            pass
    bare.must_run("k3s")
    again = bare.must_run("k3s")
    assert again.changed == []
    assert bare.must_run("k3s", "--check").changed == []

    nodes = bare.nodes()
    assert {name: node["status"]["nodeInfo"]["kubeletVersion"] for name, node in nodes.items()} == dict.fromkeys(
        ("server-1", "agent-1"), VERSION
    )
    assert "/channels/stable" in releases.asked
    assert f"/{VERSION}/sha256sum-amd64.txt" in releases.asked
    assert not any(path.startswith(f"/{NEWER}") for path in releases.asked)
    merged = yaml.safe_load(bare.kubeconfig.read_text())
    assert merged["current-context"] == "work"
    assert {
        kind: [entry for entry in merged[kind] if entry["name"] == "work"] for kind in ("clusters", "contexts", "users")
    } == {kind: other[kind] for kind in ("clusters", "contexts", "users")}
    assert sorted(context["name"] for context in merged["contexts"]) == ["k3s", "work"]
    assert bare.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_secrets_are_roots_alone_and_in_no_output(installed: Site, server: Node, agent: Node) -> None:
    token = fleet.on(server, "cat", "/var/lib/rancher/k3s/server/token").strip().rpartition(":")[2]
    output = installed.must_run("k3s", "-vvv").output
    assert len(token) > 20
    assert token not in output
    key = next(
        user["user"]
        for user in yaml.safe_load(installed.kubeconfig.read_text())["users"]
        if user["name"].startswith("k3s")
    )
    assert key["client-key-data"] not in output
    for node in (server, agent):
        for file in ("/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/token"):
            if found := fleet.on(node, "sh", "-c", f"stat -c '%a %U' {file} 2>/dev/null || true").strip():
                assert found == "600 root", file


def test_settings_reach_nodes_and_the_second_run_has_nothing_to_do(installed: Site, server: Node, agent: Node) -> None:
    mirrors = {"mirrors": {"docker.io": {"endpoint": ["https://mirror.example.com"]}}}
    installed.variables |= {
        "k3s_registries": mirrors,
        "k3s_https_proxy": "http://user:hidden-in-proxy@proxy.example.com:3128",
        "k3s_no_proxy": [".example.com"],
        "k3s_node_labels": {"rack": "{{ inventory_hostname }}"},
        "k3s_server_config": {"tls-san": ["k3s.example.com"], "disable": ["metrics-server"]},
        "k3s_agent_config": {"kubelet-arg": ["max-pods=50"]},
    }
    installed.of_hosts = {
        "agent-1": {"k3s_node_taints": ["for=builds:NoSchedule"], "k3s_node_labels": {"rack": "9", "disk": "fast"}}
    }
    run = installed.must_run("k3s")
    assert "hidden-in-proxy" not in run.output
    assert installed.must_run("k3s").changed == []

    nodes = installed.nodes()
    assert nodes["server-1"]["metadata"]["labels"]["rack"] == "server-1"
    assert (
        nodes["agent-1"]["metadata"]["labels"] | {"rack": "9", "disk": "fast"} == nodes["agent-1"]["metadata"]["labels"]
    )
    assert {"key": "for", "value": "builds", "effect": "NoSchedule"} in nodes["agent-1"]["spec"]["taints"]
    for node, unit in ((server, "k3s"), (agent, "k3s-agent")):
        assert yaml.safe_load(fleet.on(node, "cat", "/etc/rancher/k3s/registries.yaml")) == mirrors
        assert fleet.on(node, "stat", "-c", "%a", "/etc/rancher/k3s/registries.yaml").strip() == "600"
        # What the process itself has been given.
        pid = fleet.on(node, "systemctl", "show", "--property", "MainPID", "--value", unit).strip()
        given = fleet.on(node, "cat", f"/proc/{pid}/environ").split("\0")
        assert "HTTPS_PROXY=http://user:hidden-in-proxy@proxy.example.com:3128" in given
        direct = next(value for value in given if value.startswith("NO_PROXY=")).partition("=")[2].split(",")
        assert {".example.com", "127.0.0.0/8", "10.42.0.0/16", "10.43.0.0/16", ".svc", installed.fleet.network} <= set(
            direct
        )
    certificate = fleet.on(server, "python3", "-c", CERTIFICATE)
    assert "k3s.example.com" in certificate
    assert set(yaml.safe_load(fleet.on(server, "cat", "/etc/rancher/k3s/config.yaml"))["disable"]) == {
        "traefik",
        "metrics-server",
    }

    installed.variables.pop("k3s_registries")
    installed.must_run("k3s")
    assert "registries.yaml" not in fleet.on(server, "ls", "/etc/rancher/k3s")


CERTIFICATE = """\
import socket, ssl
context = ssl.create_default_context(cafile="/var/lib/rancher/k3s/server/tls/server-ca.crt")
server = socket.create_connection(("127.0.0.1", 6443))
with context.wrap_socket(server, server_hostname="k3s.example.com") as connection:
    print(connection.getpeercert()["subjectAltName"])
"""


def test_archives_of_images_are_copied_once(installed: Site, tmp_path: Path) -> None:
    archive, copy = tmp_path / "dns.tar", "/var/lib/rancher/k3s/agent/images/dns.tar"
    installed.must_run("k3s")
    installed.variables["k3s_airgap_images"] = [str(archive)]
    for content, changed in (("first", 1_700_000_000), ("other", 1_700_000_060)):
        archive.write_text(content)
        os.utime(archive, (changed, changed))
        run = installed.must_run("k3s")
        assert {"server-1: Copy archives of images", "agent-1: Copy archives of images"} <= {*run.changed}
        assert not [name for name in run.changed if "Start" in name]
        assert [fleet.on(node, "cat", copy) for node in installed.fleet.nodes] == [content, content]
        assert not installed.must_run("k3s").changed
    fleet.on(installed.fleet.node("agent-1"), "sh", "-c", f"echo broken > {copy}")
    assert "agent-1: Copy archives of images" in installed.must_run("k3s").changed
    assert fleet.on(installed.fleet.node("agent-1"), "cat", copy) == "other"
    # A machine of another kind gets another archive of that name, by a link.
    for_agents = tmp_path / "agents" / "dns.tar"
    for_agents.parent.mkdir()
    (tmp_path / "behind").write_text("agents'")
    for_agents.symlink_to(tmp_path / "behind")
    installed.of_hosts = {"agent-1": {"k3s_airgap_images": [str(for_agents)]}}
    assert "server-1: Copy archives of images" not in installed.must_run("k3s").changed
    assert [fleet.on(node, "cat", copy) for node in installed.fleet.nodes] == ["other", "agents'"]
    assert not installed.must_run("k3s").changed


@pytest.mark.parametrize("host", ["server-1", "agent-1"])
def test_a_run_of_one_node_knows_the_others(installed: Site, host: str) -> None:
    installed.must_run("k3s")
    run = installed.must_run("k3s", "--limit", host)
    assert run.changed == []
    assert {at for at, _task, _result in run.results} == {host}


def test_what_this_role_does_not_do_yet_is_refused_whole(installed: Site, releases: Releases) -> None:
    installed.variables |= {"k3s_token": "another-than-the-clusters"}
    told = refused(installed).failure
    assert "server-1: k3s_token: is not the token of the cluster that this server runs; remove the variable" in told
    assert "another-than-the-clusters" not in told
    del installed.variables["k3s_token"]

    del installed.variables["k3s_binary"]
    installed.variables |= {"k3s_version": NEWER, "k3s_mirror": releases.url}
    told = refused(installed).failure
    for host in ("server-1", "agent-1"):
        assert f"{host}: k3s_version: {NEWER}: {VERSION} is installed; this role does not upgrade yet" in told
    assert f"set k3s_version: {VERSION}" in told


def test_a_node_with_the_token_of_another_cluster_is_brought_home(installed: Site, agent: Node) -> None:
    fleet.on(agent, "systemctl", "stop", "k3s-agent")
    fleet.write(agent, "/etc/rancher/k3s/token", "K10" + "0" * 64 + "::server:of-another-cluster\n")
    run = installed.must_run("k3s")
    assert "agent-1: Write the token" in run.changed
    assert _active(agent)
    assert installed.must_run("k3s").changed == []


def test_a_node_that_takes_anothers_name_is_told_as_k3s_says_it(installed: Site, agent: Node) -> None:
    """As after a new installation of its system: the cluster knows another machine of that name."""
    fleet.create(agent, build())
    fleet.wait(agent)
    installed.variables["k3s_timeout"] = 15
    started = time.monotonic()
    run = installed.run("k3s")
    assert run.code != 0
    assert "Node password rejected" in run.failure
    assert time.monotonic() - started < 200
    installed.kubectl("delete", "node", "agent-1")
    installed.variables["k3s_timeout"] = 60
    installed.must_run("k3s")
    assert wait_until(lambda: "agent-1" in installed.nodes(), "the node is back", 30)


def test_a_node_that_is_lost_in_mid_run_is_told_and_the_next_run_completes(installed: Site, agent: Node) -> None:
    installed.kubectl("delete", "node", "agent-1")
    fleet.create(agent, build())
    fleet.wait(agent)
    try:
        with installed.until("k3s", "Write the configuration") as process:
            fleet.unplug(agent)
            output, _nothing = process.communicate(timeout=300)
    finally:
        fleet.plug(agent)
    assert process.returncode != 0
    assert re.search(r"^agent-1 .* unreachable=1 ", output, re.M), output
    assert _active(installed.fleet.node("server-1"))
    installed.must_run("k3s")
    assert installed.must_run("k3s").changed == []


# The end


THEIRS = (
    "ip link add br-lan type bridge",
    "ip link set br-lan up",
    "ip address add 192.0.2.1/24 dev br-lan",
    "ip route add 198.51.100.0/24 dev br-lan",
    "iptables -A INPUT -p tcp --dport 22 -j ACCEPT",
    "iptables -t nat -N THEIRS",
    "iptables -t nat -A THEIRS -j RETURN",
    "mkdir -p /etc/cni/net.d /opt/cni/bin /etc/theirs",
    "touch /etc/cni/net.d/99-theirs.conflist /opt/cni/bin/theirs /usr/local/bin/theirs /etc/theirs/file",
)
"""What somebody else has on a node."""
OURS = (
    "ip link add cilium_host type veth peer cilium_net",
    "ip link add cilium_vxlan type vxlan id 1 dstport 8472",
    "ip link add cni0 type bridge",
    "ip link add lxc0a1b2c3d4e5f type veth peer lxc5f4e3d2c1b0a",
    "iptables -N CILIUM_INPUT",
    "iptables -A INPUT -m comment --comment cilium-feeder: -j CILIUM_INPUT",
    "iptables -t nat -N KUBE-SERVICES",
    "iptables -t nat -A PREROUTING -m comment --comment kubernetes -j KUBE-SERVICES",
    "touch /etc/cni/net.d/05-cilium.conflist",
)
"""What the network of a real cluster would leave."""


def test_reset_takes_k3s_away_and_nothing_else(bare: Site) -> None:
    for node in bare.fleet.nodes:
        for command in THEIRS:
            fleet.on(node, *command.split())
    before = states(bare)
    bare.must_run("k3s")
    for node in bare.fleet.nodes:
        for command in OURS:
            fleet.on(node, *command.split())
    theirs = {"name": "theirs", "cluster": {"server": "https://theirs.example.com"}}
    kubeconfig = yaml.safe_load(bare.kubeconfig.read_text())
    kubeconfig["clusters"] = [*(each for each in kubeconfig["clusters"] if each["name"] != "theirs"), theirs]
    bare.kubeconfig.write_text(yaml.safe_dump(kubeconfig))

    told = bare.must_run("reset", "--check")
    assert told.changed
    assert all(_active(node) for node in bare.fleet.nodes)

    bare.must_run("reset")
    for node, now, then in zip(bare.fleet.nodes, states(bare), before, strict=True):
        assert lines(now) == lines(then), node.name
        assert fleet.answers(node)
        # Brackets, lest it finds the shell that asks.
        assert fleet.on(node, "sh", "-c", "pgrep --full -l '[/]opt/stand-in/|[/]usr/local/bin/k3s ' || true") == ""
    left = yaml.safe_load(bare.kubeconfig.read_text())
    assert "k3s" not in [context["name"] for context in left["contexts"]]
    assert theirs in left["clusters"]
    assert bare.must_run("reset").changed == []


def lines(text: str) -> list[str]:
    """A node's state without the times of folders that are written to in between."""
    return [re.sub(r"^(\S+ d \S+ \S+) .*", r"\1", line) for line in text.splitlines()]
