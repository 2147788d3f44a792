"""Where nodes keep things, their names, and their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.places import CACHE

HERE = Path(__file__).resolve().parent
STATE = CACHE / "nodes"
"""All that nodes write, below a folder for each fleet; podman's images, too."""
USER = "admin"
"""Who logs in; sudo asks for no password."""
KEY = STATE / "key"
LIMIT = 20_000
"""Of files and processes: what podman and k3s ask for is more than a machine without CAP_SYS_RESOURCE grants."""
PROGRAMS = "/opt/stand-in"
"""Where nodes see the programs that the stand-in for k3s starts."""


@dataclass(frozen=True)
class Fleet:
    """Nodes that see each other and this machine, and nothing beyond. Fleets may be there at the same time."""

    name: str
    number: int
    servers: int
    agents: int

    @property
    def bridge(self) -> str:
        return f"smnodes{self.number}"

    @property
    def network(self) -> str:
        return f"10.241.{self.number}.0/24"

    @property
    def host(self) -> str:
        """This machine."""
        return self.address(1)

    @property
    def balanced(self) -> str:
        """Addresses that nobody has: for Services of type LoadBalancer."""
        return f"{self.address(200)}-{self.address(219)}"

    @property
    def folder(self) -> Path:
        return STATE / self.name

    @property
    def inventory(self) -> Path:
        return self.folder / "hosts.yml"

    @property
    def nodes(self) -> Sequence[Node]:
        kinds = [
            *(("server", n) for n in range(1, self.servers + 1)),
            *(("agent", n) for n in range(1, self.agents + 1)),
        ]
        return [Node(self, kind, number, 10 + last) for last, (kind, number) in enumerate(kinds, 1)]

    def address(self, last: int) -> str:
        return self.network.replace("0/24", str(last))

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


@dataclass(frozen=True)
class Node:
    fleet: Fleet
    kind: str
    number: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number}"

    @property
    def address(self) -> str:
        return self.fleet.address(self.last)

    @property
    def container(self) -> str:
        return f"{self.fleet.bridge}-{self.name}"

    @property
    def link(self) -> str:
        """The host's end of its cable; the node's end is eth0."""
        return f"{self.fleet.bridge}-{self.last}"

    @property
    def namespace(self) -> str:
        """Its network, as `ip netns` calls it."""
        return self.container


FLEETS = {
    fleet.name: fleet
    for fleet in (
        Fleet("one", 1, servers=1, agents=0),
        Fleet("pair", 2, servers=1, agents=1),
        Fleet("ha", 3, servers=3, agents=1),
        Fleet("tests", 4, servers=1, agents=1),
    )
}
"""By their names; tests that break things have one of their own."""
