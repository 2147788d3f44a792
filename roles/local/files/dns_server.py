# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authoritative DNS server of one mesh: the names of its services, out of a file that may change at any time.

    python dns_server.py --address 127.20.7.254 --port 8053 --zone zone.json

The file: {"ttl": 1, "domain": "cluster.local", "records": {"service-a.default.svc.cluster.local": ["127.20.8.1"]}}
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

CHECK_SECONDS = 0.05
"""How often, at most, the file is looked at."""
PLAIN_UDP_BYTES = 512
TCP_BYTES = 65535
TCP_IDLE_SECONDS = 10.0
CACHED_ANSWERS = 4096
HEADER_BYTES = 12
_RESPONSE = 0x80
"""The bit in a message's third byte that tells an answer from a question."""


class ZoneError(Exception):
    """A zone's file is missing, or not what it should be."""


@dataclass(frozen=True)
class Zone:
    """The records as answers need them."""

    domain: dns.name.Name
    soa: dns.rrset.RRset
    addresses: dict[dns.name.Name, dns.rdataset.Rdataset | None]
    """A records by name; None for a name that has no address, for instance one above others."""

    def __str__(self) -> str:
        names = sum(records is not None for records in self.addresses.values())
        return f"{self.domain.to_text(omit_final_dot=True)} with {names} name{'' if names == 1 else 's'}"

    @classmethod
    def parse(cls, text: str) -> Zone:
        """Raises ZoneError."""
        try:
            data = json.loads(text)
            ttl, domain = int(data["ttl"]), dns.name.from_text(data["domain"])
            addresses = {dns.name.from_text(name): _a_records(ttl, ips) for name, ips in data["records"].items()}
        except (ValueError, KeyError, TypeError, AttributeError, dns.exception.DNSException) as error:
            raise ZoneError(f"{type(error).__name__}: {error}") from error
        for name in [domain, *addresses]:
            while name.is_subdomain(domain):
                addresses.setdefault(name, None)
                if name == domain:
                    break
                name = name.parent()
        return cls(domain, _soa(domain, ttl), addresses)


def _a_records(ttl: int, addresses: list[str]) -> dns.rdataset.Rdataset | None:
    if not addresses:
        return None
    # A number would be an address, too: by way of text it is none.
    texts = [str(ipaddress.IPv4Address(str(address))) for address in addresses]
    return dns.rdataset.from_text_list("IN", "A", ttl, texts)


def _soa(domain: dns.name.Name, ttl: int) -> dns.rrset.RRset:
    """It tells resolvers how long they may remember that something does not exist: as long as anything else."""
    return dns.rrset.from_text(domain, ttl, "IN", "SOA", f"ns.{domain} hostmaster.{domain} 1 {ttl} {ttl} {ttl} {ttl}")


class ZoneFile:
    """The zone of a file, read anew when the file has changed. A file that cannot be read leaves the zone as it is."""

    def __init__(self, path: Path) -> None:
        """Raises ZoneError."""
        self._path = path
        self._checked = time.monotonic()
        self._version = self._stat()
        self.zone = self._read()

    def current(self) -> Zone:
        now = time.monotonic()
        if now - self._checked < CHECK_SECONDS:
            return self.zone
        self._checked = now
        version = self._stat()
        if version != self._version:
            self._version = version
            try:
                self.zone = self._read()
            except ZoneError as error:
                _log(f"{error}; the records stay as they were")
            else:
                _log(f"{self.zone} is read anew")
        return self.zone

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            stat = self._path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> Zone:
        try:
            return Zone.parse(self._path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ZoneError) as error:
            raise ZoneError(f"cannot read {self._path}: {error}") from error


class Answers:
    """Answers messages. Those of one zone are remembered: resolvers ask the same again and again, apart from its id."""

    def __init__(self, file: ZoneFile) -> None:
        self._file = file
        self._zone = file.zone
        self._known: dict[tuple[bytes, bool], bytes] = {}

    def answer(self, message: bytes, *, tcp: bool) -> bytes | None:
        """None for what deserves no answer: too short for a header, or itself an answer."""
        if len(message) < HEADER_BYTES or message[2] & _RESPONSE:
            return None
        zone = self._file.current()
        if zone is not self._zone or len(self._known) >= CACHED_ANSWERS:
            self._zone, self._known = zone, {}
        key = (message[2:], tcp)
        if key not in self._known:
            self._known[key] = answer(zone, message, tcp=tcp)[2:]
        return message[:2] + self._known[key]


def answer(zone: Zone, message: bytes, *, tcp: bool) -> bytes:
    """The answer to a message with a whole header. An answer too long for UDP is cut and says so, upon which the
    client asks again by TCP."""
    if _opcode(message) != dns.opcode.QUERY:
        return _header_only(message, dns.rcode.NOTIMP)
    try:
        query = dns.message.from_wire(message)
        response = dns.message.make_response(query, our_payload=TCP_BYTES)
        _fill(zone, query, response)
        return response.to_wire(max_size=_room(query, tcp=tcp), prefer_truncation=True, want_shuffle=False)
    except Exception:  # noqa: BLE001 - whatever garbage does to the parser, the server goes on
        return _header_only(message, dns.rcode.FORMERR)


def _fill(zone: Zone, query: dns.message.Message, response: dns.message.Message) -> None:
    """Code and records of the answer; raises for anything but one question."""
    (question,) = query.question
    if query.edns > 0:
        response.set_rcode(dns.rcode.BADVERS)
        return
    if question.rdclass != dns.rdataclass.IN or not question.name.is_subdomain(zone.domain):
        response.set_rcode(dns.rcode.REFUSED)
        return
    response.flags |= dns.flags.AA
    records = zone.addresses.get(question.name)
    if records and question.rdtype in (dns.rdatatype.A, dns.rdatatype.ANY):
        response.answer.append(dns.rrset.from_rdata_list(question.name, records.ttl, list(records)))
        return
    response.authority.append(zone.soa)
    if question.name not in zone.addresses:
        response.set_rcode(dns.rcode.NXDOMAIN)


def _room(query: dns.message.Message, *, tcp: bool) -> int:
    """How long an answer may be, in bytes."""
    if tcp:
        return TCP_BYTES
    return max(query.payload, PLAIN_UDP_BYTES) if query.edns >= 0 else PLAIN_UDP_BYTES


def _opcode(message: bytes) -> int:
    return (message[2] >> 3) & 0xF


def _header_only(message: bytes, rcode: dns.rcode.Rcode) -> bytes:
    """An answer without a question, for a message that may not have one."""
    return message[:2] + bytes([_RESPONSE | (message[2] & 0x79), rcode]) + bytes(8)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own class is none of its DatagramTransports before Python 3.12, so isinstance() would say no.
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self._answers.answer(data, tcp=False)
        if response and self._transport:
            self._transport.sendto(response, addr)


async def _serve_tcp(answers: Answers, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Questions one after the other, each after its length in two bytes, until the client leaves or falls silent.

    It ends quietly when the server does: a cancelled one would be reported as an error by asyncio.
    """
    end = (OSError, EOFError, TimeoutError, asyncio.CancelledError)
    with contextlib.suppress(*end), contextlib.closing(writer):
        while True:
            async with asyncio.timeout(TCP_IDLE_SECONDS):
                message = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                response = answers.answer(message, tcp=True)
                if not response:
                    return
                writer.write(len(response).to_bytes(2, "big") + response)
                await writer.drain()


async def serve(address: str, port: int, file: ZoneFile) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError when an address cannot be bound."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    answers = Answers(file)
    tcp = await asyncio.start_server(lambda reader, writer: _serve_tcp(answers, reader, writer), address, port)
    udp = (await loop.create_datagram_endpoint(lambda: _Udp(answers), local_addr=(address, port)))[0]
    _log(f"{file.zone} is served on {address} port {port}, UDP and TCP")
    await stop.wait()
    udp.close()
    tcp.close()


def main() -> int:
    parser = argparse.ArgumentParser(description="Authoritative DNS server of one mesh.")
    parser.add_argument("--address", required=True, help="address to listen on")
    parser.add_argument("--port", required=True, type=int, help="port to listen on, UDP and TCP")
    parser.add_argument("--zone", required=True, type=Path, help="JSON file with ttl, domain and records")
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.address, arguments.port, ZoneFile(arguments.zone)))
    except ZoneError as error:
        _log(str(error))
        return 1
    except OSError as error:
        _log(f"cannot listen on {arguments.address} port {arguments.port}: {os.strerror(error.errno or errno.EIO)}")
        return 1
    return 0


def _log(text: str) -> None:
    print(f"dns_server: {text}", flush=True)  # noqa: T201 - supervisord keeps it


if __name__ == "__main__":
    sys.exit(main())
