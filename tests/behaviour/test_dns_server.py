"""The DNS server of role local as a process, asked by dnspython, by raw sockets and by a real Envoy."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest
import yaml
from behaviour.machine import BIN, ROOT, Client, loopback, wait_until

SERVER = ROOT / "roles" / "local" / "files" / "dns_server.py"
PORT = 8053
A = "service-a.default.svc.cluster.local"
BIG = "big.default.svc.cluster.local"
BIG_ADDRESSES = [f"127.9.{number // 250}.{number % 250 + 1}" for number in range(200)]
RECORDS = {A: ["127.1.2.3", "127.1.2.2"], BIG: BIG_ADDRESSES, "resting.default.svc.cluster.local": []}


def zone(records: Any, **changes: Any) -> str:
    return json.dumps({"ttl": 1, "domain": "cluster.local", "records": records} | changes)


class Server:
    """A server's process and a client of it."""

    def __init__(self, folder: Path) -> None:
        self.address = loopback()
        self.zone = folder / "zone.json"
        self.zone.write_text(zone(RECORDS))
        self.process: subprocess.Popen[str] | None = None

    def command(self) -> list[object]:
        return [sys.executable, SERVER, "--address", self.address, "--port", str(PORT), "--zone", self.zone]

    def start(self) -> str:
        """The line it prints."""
        self.process = subprocess.Popen(
            list(map(str, self.command())), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout
        return self.process.stdout.readline()

    def stop(self) -> tuple[int, str]:
        """Its status, and what it printed since it was started."""
        assert self.process
        self.process.terminate()
        output, _other = self.process.communicate(timeout=10)
        return self.process.returncode, output

    def write(self, text: str) -> None:
        """A new zone, as an atomic writer does it."""
        draft = self.zone.with_suffix(".new")
        draft.write_text(text)
        draft.replace(self.zone)

    def ask(self, name: str, kind: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        query = dns.message.make_query(name, kind, **options)
        return (dns.query.tcp if tcp else dns.query.udp)(query, self.address, port=PORT, timeout=5)

    def addresses(self, name: str, **options: Any) -> list[str]:
        return [record.address for answer in self.ask(name, **options).answer for record in answer]

    def raw(self, message: bytes) -> bytes:
        """The answer to anything, or b"" when there is none for a while."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(0.3)
            client.sendto(message, (self.address, PORT))
            try:
                return client.recv(65535)
            except TimeoutError:
                return b""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    assert server.start() == (
        f"dns_server: cluster.local with 2 names is served on {server.address} port {PORT}, UDP and TCP\n"
    )
    yield server
    assert server.process
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()


def summary(message: dns.message.Message) -> tuple[str, bool, int, list[str]]:
    """Code, whether it is authoritative, number of answers, names of the authority records."""
    authority = [f"{records.name} {records.ttl} {records[0].minimum}" for records in message.authority]
    return dns.rcode.to_text(message.rcode()), bool(message.flags & dns.flags.AA), len(message.answer), authority


@pytest.mark.parametrize("tcp", [False, True])
def test_addresses_in_the_order_of_the_file(server: Server, tcp: bool) -> None:
    answer = server.ask(A, tcp=tcp)
    assert summary(answer) == ("NOERROR", True, 1, [])
    assert answer.answer[0].ttl == 1
    for _round in range(10):
        assert server.addresses(A, tcp=tcp) == RECORDS[A]


def test_names_are_found_in_any_case_and_answered_in_the_same(server: Server) -> None:
    answer = server.ask("SERVICE-a.Default.svc.CLUSTER.local")
    assert str(answer.answer[0].name) == "SERVICE-a.Default.svc.CLUSTER.local."
    assert len(answer.answer[0]) == 2


SOA = "cluster.local. 1 1"


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (A, "AAAA", ("NOERROR", True, 0, [SOA])),
        (A, "SRV", ("NOERROR", True, 0, [SOA])),
        (A, "ANY", ("NOERROR", True, 1, [])),
        ("resting.default.svc.cluster.local", "A", ("NOERROR", True, 0, [SOA])),
        ("default.svc.cluster.local", "A", ("NOERROR", True, 0, [SOA])),
        ("cluster.local", "A", ("NOERROR", True, 0, [SOA])),
        ("unknown.default.svc.cluster.local", "A", ("NXDOMAIN", True, 0, [SOA])),
        (f"below.{A}", "A", ("NXDOMAIN", True, 0, [SOA])),
        ("example.org", "A", ("REFUSED", False, 0, [])),
        ("notcluster.local", "A", ("REFUSED", False, 0, [])),
        (".", "A", ("REFUSED", False, 0, [])),
    ],
)
def test_other_questions(server: Server, name: str, kind: str, expected: tuple[str, bool, int, list[str]]) -> None:
    assert summary(server.ask(name, kind)) == expected
    assert summary(server.ask(name, kind, tcp=True)) == expected


def test_other_classes_and_versions(server: Server) -> None:
    assert server.ask(A, rdclass="CH").rcode() == dns.rcode.REFUSED
    assert server.ask(A, use_edns=1).rcode() == dns.rcode.BADVERS


@pytest.mark.parametrize(
    ("options", "room", "truncated"),
    [({}, 512, True), ({"use_edns": 0, "payload": 1232}, 1232, True), ({"use_edns": 0, "payload": 4096}, 4096, False)],
)
def test_answers_keep_to_the_room_a_client_has(
    server: Server, options: dict[str, int], room: int, truncated: bool
) -> None:
    query = dns.message.make_query(BIG, "A", **options)
    response = server.raw(query.to_wire())
    assert len(response) <= room
    message = dns.message.from_wire(response)
    assert bool(message.flags & dns.flags.TC) is truncated
    assert len(message.answer) == (0 if truncated else 1)
    assert message.edns == (0 if options else -1)


def test_tcp_has_room_for_all(server: Server) -> None:
    answer, by_tcp = dns.query.udp_with_fallback(dns.message.make_query(BIG, "A"), server.address, 5, PORT)
    assert by_tcp
    assert [record.address for record in answer.answer[0]] == BIG_ADDRESSES


def test_several_questions_over_one_tcp_connection(server: Server) -> None:
    with socket.create_connection((server.address, PORT)) as connection:
        connection.settimeout(5)
        for _round in range(3):
            dns.query.send_tcp(connection, dns.message.make_query(A, "A"))
            answer, _other = dns.query.receive_tcp(connection)
            assert len(answer.answer[0]) == 2


def test_same_question_with_another_id(server: Server) -> None:
    """Answers are remembered, and must not carry somebody else's id."""
    query = dns.message.make_query(A, "A")
    for query.id in (1, 2, 65535):
        assert dns.message.from_wire(server.raw(query.to_wire())).id == query.id


def test_file_is_read_anew_when_it_changes(server: Server) -> None:
    for address in ("127.5.5.1", "127.5.5.2"):
        server.write(zone({A: [address]}))
        wait_until(lambda address=address: server.addresses(A) == [address], "the new address", 1)  # type: ignore[misc]
    assert server.ask(BIG).rcode() == dns.rcode.NXDOMAIN
    server.write(zone({A: ["127.5.5.1"]}, ttl=7, domain="default.svc.cluster.local"))
    wait_until(lambda: server.ask("cluster.local").rcode() == dns.rcode.REFUSED, "the new domain", 1)
    assert server.ask(A).answer[0].ttl == 7
    assert server.stop()[1].count("default.svc.cluster.local with 1 name is read anew\n") == 1


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        "null",
        "",
        json.dumps({"ttl": 1, "domain": "cluster.local"}),
        zone({A: ["not an address"]}),
        zone({A: ["::1"]}),
        zone({"a..b": ["127.0.0.1"]}),
        zone({A: [1]}),
        zone([]),
        zone(RECORDS, ttl="x"),
    ],
)
def test_broken_file_keeps_the_records(server: Server, broken: str) -> None:
    server.write(broken)
    time.sleep(0.1)
    for _round in range(3):
        assert server.addresses(A) == RECORDS[A]
        time.sleep(0.06)
    server.write(zone({A: ["127.5.5.1"]}))
    wait_until(lambda: server.addresses(A) == ["127.5.5.1"], "it recovers", 1)
    first, second = server.stop()[1].splitlines()
    assert first.startswith(f"dns_server: cannot read {server.zone}: ")
    assert first.endswith("; the records stay as they were")
    assert second == "dns_server: cluster.local with 1 name is read anew"


def test_missing_file_keeps_the_records(server: Server) -> None:
    server.zone.unlink()
    time.sleep(0.1)
    assert server.addresses(A) == RECORDS[A]
    time.sleep(0.1)
    assert server.addresses(A) == RECORDS[A]
    server.write(zone({A: ["127.5.5.1"]}))
    wait_until(lambda: server.addresses(A) == ["127.5.5.1"], "it recovers", 1)
    assert server.stop()[1].count("No such file or directory") == 1


def test_garbage_harms_nobody(server: Server) -> None:
    dice = random.Random(7)
    good = dns.message.make_query(A, "A", use_edns=0).to_wire()
    for number in range(300):
        broken = bytearray(good)
        for _round in range(dice.randrange(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(bytes(broken[: dice.randrange(len(broken) + 1)]), (server.address, PORT))
            client.sendto(dice.randbytes(dice.randrange(600)), (server.address, PORT))
        if number % 50 == 0:  # else a full socket buffer loses the rest
            assert server.addresses(A) == RECORDS[A]
    for data in (b"\0", b"\xff\xff", b"\0\0", b"\0\x05hello", (300).to_bytes(2, "big") + dice.randbytes(300)):
        with socket.create_connection((server.address, PORT)) as connection:
            connection.sendall(data)
    assert server.addresses(A) == server.addresses(A, tcp=True) == RECORDS[A]
    assert server.stop() == (0, "")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"", b""),
        (b"\x12\x34" + bytes(9), b""),
        (b"\x12\x34\x80\x00" + bytes(8), b""),  # an answer is not answered
        (b"\x12\x34\x01\x00" + bytes(8), b"\x12\x34\x81\x01" + bytes(8)),  # FORMERR: no question
        (b"\x12\x34\x01\x00\x00\x01" + bytes(6), b"\x12\x34\x81\x01" + bytes(8)),  # FORMERR: it ends too early
        (b"\x12\x34\x28\x00\x00\x01" + bytes(6), b"\x12\x34\xa8\x04" + bytes(8)),  # NOTIMP: an update
    ],
)
def test_messages_that_are_no_questions(server: Server, message: bytes, expected: bytes) -> None:
    assert server.raw(message) == expected


def test_two_questions_in_one_message(server: Server) -> None:
    query = dns.message.make_query(A, "A")
    query.question *= 2
    assert dns.message.from_wire(server.raw(query.to_wire())).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_when_it_is_told_to(server: Server, number: signal.Signals) -> None:
    assert server.process
    with socket.create_connection((server.address, PORT)):
        os.kill(server.process.pid, number)
        assert server.process.communicate(timeout=5) == ("", None)
    assert server.process.returncode == 0


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_port_in_use(tmp_path: Path, kind: socket.SocketKind) -> None:
    server = Server(tmp_path)
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((server.address, PORT))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        done = subprocess.run(list(map(str, server.command())), capture_output=True, text=True, check=False, timeout=10)
    assert done.stdout == f"dns_server: cannot listen on {server.address} port {PORT}: Address already in use\n"
    assert (done.returncode, done.stderr) == (1, "")


def test_zone_that_cannot_be_read_at_start(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.zone.write_text("{")
    done = subprocess.run(list(map(str, server.command())), capture_output=True, text=True, check=False, timeout=10)
    assert done.stdout.startswith(f"dns_server: cannot read {server.zone}: JSONDecodeError: ")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")


def test_quick_enough_for_many_proxies(server: Server) -> None:
    """Each of 50 proxies with 5 upstreams asks once a second: 250 questions a second are nothing special."""
    message = dns.message.make_query(BIG, "A", use_edns=0, payload=4096).to_wire()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.connect((server.address, PORT))
        began = time.monotonic()
        for number in range(1000):
            client.send(number.to_bytes(2, "big") + message[2:])
            client.recv(65535)
    assert time.monotonic() - began < 3


def test_envoy_finds_200_hosts_and_follows_a_change(server: Server, tmp_path: Path) -> None:
    address = loopback()
    admin = {"socket_address": {"address": address, "port_value": 9901}}
    dns_cluster = {
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_refresh_rate": "0.2s",
        "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": {"address": server.address, "port_value": PORT}}],
            },
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": f"{BIG}.", "port_value": 80}}}}
    cluster = {
        "name": "big",
        "cluster_type": {"name": "envoy.cluster.dns", "typed_config": dns_cluster},
        "load_assignment": {"cluster_name": "big", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    config = tmp_path / "envoy.yaml"
    config.write_text(yaml.safe_dump({"admin": {"address": admin}, "static_resources": {"clusters": [cluster]}}))

    def hosts() -> int:
        with contextlib.suppress(OSError):
            stats = Client(address, 9901).get("/stats?filter=cluster.big.membership_total").body
            return int(stats.rpartition(":")[2] or 0)
        return -1

    envoy = subprocess.Popen([BIN / "envoy", "-c", config, "--disable-hot-restart", "-l", "error"])
    try:
        wait_until(lambda: hosts() == 200, "200 hosts")
        server.write(zone({BIG: BIG_ADDRESSES[:3]}))
        wait_until(lambda: hosts() == 3, "3 hosts")
    finally:
        envoy.kill()
        envoy.wait()


def test_help_names_the_arguments() -> None:
    done = subprocess.run([sys.executable, SERVER, "--help"], capture_output=True, text=True, check=True)
    assert {"--address", "--port", "--zone"} <= set(done.stdout.split())
