"""What is read of a machine: trees of files as machines have them."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_binary, k3s_facts
from unit import self_signed

DATA = "/var/lib/rancher/k3s"
MARKED = "# Managed by Ansible (role sidecar.mesh.k3s); changes are overwritten.\n"
SHOWN = """\
Id=k3s.service
LoadState=loaded
ActiveState=active
UnitFileState=enabled
ExecMainStartTimestampMonotonic=40000000

Id=k3s-agent.service
LoadState=not-found
ActiveState=inactive
UnitFileState=
ExecMainStartTimestampMonotonic=0
"""


def nothing(_command: list[str]) -> str:
    return ""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def machine(root: Path) -> k3s_facts.Facts:
    return k3s_facts.machine(root, DATA, nothing)


def installed(root: Path, token: str = "") -> k3s_facts.Facts:
    return k3s_facts.installed(root, "/usr/local/bin/k3s", DATA, token, "", False, [], nothing)


def test_a_bare_machine(tmp_path: Path) -> None:
    found = installed(tmp_path)
    assert {key: value for key, value in found.items() if value and key not in ("config", "links")} == {}
    assert machine(tmp_path)["systemd"] is False


def test_memory_and_systemd(tmp_path: Path) -> None:
    write(tmp_path, {"proc/meminfo": "MemTotal:        2048000 kB\nMemFree: 1 kB\n", "run/systemd/system/x": ""})
    found = machine(tmp_path)
    assert (found["memory"], found["systemd"]) == (2000, True)


def test_control_groups_of_both_versions(tmp_path: Path) -> None:
    table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t5\t1\t1\nmemory\t0\t1\t0\n"
    write(tmp_path, {"proc/cgroups": table})
    assert machine(tmp_path)["cgroup"] == {"version": 1, "controllers": ["cpuset"]}
    write(tmp_path, {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory\n"})
    assert machine(tmp_path)["cgroup"] == {"version": 2, "controllers": ["cpuset", "cpu", "io", "memory"]}


def test_kernel_modules(tmp_path: Path) -> None:
    assert set(machine(tmp_path)["modules"].values()) == {"unknown"}
    folder = f"lib/modules/{os.uname().release}"
    lists = {
        "modules.dep": "kernel/net/br-netfilter.ko.xz: kernel/net/bridge.ko.xz\n",
        "modules.builtin": "kernel/a.ko\n",
    }
    write(tmp_path, {f"{folder}/{name}": text for name, text in lists.items()})
    write(tmp_path, {"proc/filesystems": "nodev\tproc\nnodev\toverlay\n"})
    assert machine(tmp_path)["modules"] == {"br_netfilter": "present", "overlay": "present", "vxlan": "absent"}
    (tmp_path / "sys/module/vxlan").mkdir(parents=True)
    assert machine(tmp_path)["modules"]["vxlan"] == "present"


def test_networks_without_the_default_route(tmp_path: Path) -> None:
    route = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
tun0\t00002A0A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
    write(tmp_path, {"proc/net/route": route})
    assert machine(tmp_path)["networks"] == [
        {"interface": "eth0", "network": "192.0.2.0/24"},
        {"interface": "tun0", "network": "10.42.0.0/16"},
    ]


def test_its_address_and_the_nearest_network_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k3s_facts, "_default_address", lambda: "192.0.2.11")
    assert k3s_facts.identity(tmp_path)["network"] == "", "of a cloud that routes each address by itself"
    route = (
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "eth0\t000000C0\t00000000\t0001\t0\t0\t0\t0000FFFF\n"
        "eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
        "eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    )
    found = k3s_facts.identity(write(tmp_path, {"proc/net/route": route}))
    assert (found["address"], found["network"]) == ("192.0.2.11", "192.0.2.0/24")
    assert (found["kernel"], found["nodename"]) == (os.uname().release, os.uname().nodename)


def test_without_a_default_route_it_has_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(k3s_facts, "_SOMEWHERE", "255.255.255.255")  # which the kernel refuses
    assert k3s_facts.identity(tmp_path)["address"] == ""


def test_units() -> None:
    assert k3s_facts.unit_states(SHOWN, now=1000.0, monotonic=100.0) == {
        "k3s": {"active": "active", "enabled": True, "started": 940.0}
    }
    assert k3s_facts.unit_states("") == {}


def test_files_that_a_process_has_not_read(tmp_path: Path) -> None:
    """What is newer than the process is to be read by a restart, whoever forgot it."""
    write(tmp_path, {"etc/rancher/k3s/config.yaml": MARKED, "etc/systemd/system/k3s.service": MARKED})
    os.utime(tmp_path / "etc/systemd/system/k3s.service", (10.0, 10.0))
    found = k3s_facts.installed(tmp_path, "/k3s", DATA, "", "", False, [], lambda _command: SHOWN)
    assert found["units"]["k3s"]["stale"] == ["config.yaml"]
    assert found["units"]["k3s"]["whose"] == "ours"
    assert found["configuration"] == "ours"


@pytest.mark.parametrize(
    ("state", "images"), [("active", ["a:1", "sha256:b"]), ("activating", ["a:1", "sha256:b"]), ("inactive", [])]
)
def test_images_are_listed_where_containerd_runs(tmp_path: Path, state: str, images: list[str]) -> None:
    def run(command: list[str]) -> str:
        shown = SHOWN.replace("ActiveState=active", f"ActiveState={state}")
        return {"systemctl": shown, "ctr": "a:1\nsha256:b\n"}.get(command[0 if command[0] == "systemctl" else 1], "")

    assert k3s_facts.installed(tmp_path, "/k3s", DATA, "", "", False, [], run)["images"] == images


def test_files_and_folders_as_they_are(tmp_path: Path) -> None:
    """By mode and sum, so that whoever writes them knows whether there is anything to write."""
    write(tmp_path, {"etc/rancher/k3s/config.yaml": "a", "etc/systemd/system/k3s-agent.service.env": "b"})
    (tmp_path / "etc/rancher/k3s/config.yaml").chmod(0o600)
    (tmp_path / "etc/systemd/system/k3s-agent.service.env").chmod(0o640)
    (tmp_path / "etc/rancher/k3s").chmod(0o755)
    (tmp_path / DATA[1:] / "agent/images").mkdir(parents=True, mode=0o700)
    assert installed(tmp_path)["written"] == {
        "/etc/rancher/k3s": "0755",
        "/etc/rancher/k3s/config.yaml": "0600 86f7e437faa5a7fce15d1ddcb9eaeaea377667b8",
        "/etc/systemd/system/k3s-agent.service.env": "0640 e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98",
        f"{DATA}/agent/images": "0700",
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ""),
        ({"server/db/state.db": "x"}, "sqlite"),
        ({"server/db/state.db": "x", "server/db/etcd/member/wal/0": "x"}, "etcd"),
        ({"server/db/etcd/config": "x"}, ""),
    ],
)
def test_datastores(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    write(tmp_path, {f"{DATA[1:]}/{name}": text for name, text in files.items()})
    assert installed(tmp_path)["datastore"] == expected


def test_nodes_of_one_cluster_have_one_authority(tmp_path: Path) -> None:
    one = write(tmp_path / "a", {f"{DATA[1:]}/server/tls/server-ca.crt": "CERT\n"})
    other = write(tmp_path / "b", {f"{DATA[1:]}/agent/server-ca.crt": "CERT"})
    foreign = write(tmp_path / "c", {f"{DATA[1:]}/agent/server-ca.crt": "OTHER"})
    found = [installed(root)["authority"] for root in (one, other, foreign)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("", ""),
        ("s3cr3t", "same"),
        ("s3cr3t\n", "same"),
        ("K10abc::server:s3cr3t", "same"),
        ("other", "other"),
        ("K10abc::server:other", "other"),
    ],
)
def test_tokens_are_compared_by_their_secret(tmp_path: Path, wanted: str, expected: str) -> None:
    write(tmp_path, {f"{DATA[1:]}/server/token": "K10abc::server:s3cr3t\n"})
    assert installed(tmp_path, wanted)["token"] == expected


def test_tokens_of_nodes_are_compared_by_a_secret_of_the_run(tmp_path: Path) -> None:
    def tokens(root: Path, seal: str = "secret") -> dict[str, str]:
        return dict(k3s_facts.installed(root, "/k3s", DATA, "", seal, False, [], nothing)["tokens"])

    server = write(
        tmp_path / "server", {f"{DATA[1:]}/server/{name}": f"K10::{name}\n" for name in ("token", "agent-token")}
    )
    agent = write(tmp_path / "agent", {"etc/rancher/k3s/token": "K10::agent-token"})
    assert tokens(agent) == {}, "others may read it"
    (agent / "etc/rancher/k3s/token").chmod(0o600)
    assert tokens(agent) == {"given": tokens(server)["agent"]}
    assert tokens(server)["agent"] != tokens(server)["server"] != tokens(server, "another")["server"]
    assert tokens(server, "") == {}


def test_what_a_node_was_told() -> None:
    lines = [
        "cluster-cidr: 10.42.0.0/16",
        "cluster-init: true",
        "server: https://192.0.2.1:6443",
        "node-label:",
        "- a=b",
    ]
    text = MARKED + "".join(f"{line}\n" for line in lines)
    networks = {"cluster-cidr": "10.42.0.0/16", "service-cidr": ""}
    assert k3s_facts.told(text) == {"server": "https://192.0.2.1:6443", "cluster-init": True, **networks}
    assert k3s_facts.told("") == {"server": "", "cluster-init": False, "cluster-cidr": "", "service-cidr": ""}


def test_versions() -> None:
    assert k3s_facts.version("k3s version v1.34.3+k3s1 (48ffa7b6)\ngo version go1.24.11\n") == "v1.34.3+k3s1"
    assert k3s_facts.version("Segmentation fault") == ""


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00", "x86_64"),
        (b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\x00", "aarch64"),
        (b"\x7fELF\x02\x02" + bytes(12) + b"\x00\x16", "machine 0x16"),
        (b"#!/bin/sh\n", "any"),
        (b"<html>404", ""),
        (b"", ""),
    ],
)
def test_what_a_program_was_built_for(header: bytes, expected: str) -> None:
    assert k3s_binary.architecture(header) == expected


def test_nodes_may_have_python_3_9() -> None:
    """What runs on nodes does without what came later, such as ``|`` between types at run time."""
    folder = Path(k3s_facts.__file__).parent
    for name in ("k3s_facts", "k3s_requirements", "k3s_remains", "k3s_binary", "sockets"):
        text = (folder / f"{name}.py").read_text()
        assert "from __future__ import annotations" in text
        assert not re.search(r"^\s*match .*:$|^\w+ = .*\w \| \w", text, re.MULTILINE), name


def test_archives_are_told_by_size_and_time_if_they_are_there(tmp_path: Path) -> None:
    write(tmp_path, {f"{DATA.lstrip('/')}/agent/images/dns.tar": "abc"})
    os.utime(tmp_path / DATA.lstrip("/") / "agent/images/dns.tar", (0, 1_800_000_000.9))
    found = k3s_facts.installed(tmp_path, "/k3s", DATA, "", "", False, ["dns.tar", "pause.tar"], nothing)
    assert found["archives"] == {"dns.tar": "3 1800000000"}


def pair(certificate: Path, key: Path) -> None:
    texts = self_signed.pair(datetime.now(UTC), 1, ["127.0.0.1"])
    for path, text in zip((certificate, key), texts, strict=True):
        path.write_text(text)


@contextlib.contextmanager
def api_server(folder: Path, status: int) -> Iterator[int]:
    """A server that asks for the admin's certificate, and says ``status`` to /readyz; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "client-admin.crt"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(folder / "server-ca.crt", folder / "server.key")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "expected"), [(200, True), (500, False), (401, False)])
def test_whether_the_api_server_is_ready(tmp_path: Path, status: int, expected: bool) -> None:
    pair(tmp_path / "server-ca.crt", tmp_path / "server.key")
    pair(tmp_path / "client-admin.crt", tmp_path / "client-admin.key")
    with api_server(tmp_path, status) as port:
        assert k3s_facts.answers(tmp_path, port) is expected


def test_no_api_server_is_ready_that_others_run_or_nobody(tmp_path: Path) -> None:
    pair(tmp_path / "server-ca.crt", tmp_path / "server.key")
    pair(tmp_path / "client-admin.crt", tmp_path / "client-admin.key")
    with api_server(tmp_path, 200) as port:
        pair(tmp_path / "server-ca.crt", tmp_path / "other.key")
        assert k3s_facts.answers(tmp_path, port) is False
    assert k3s_facts.answers(tmp_path, port) is False
    assert k3s_facts.answers(tmp_path / "nothing", port) is False
