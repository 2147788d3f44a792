"""Addresses and ports of the local engine."""

from __future__ import annotations

import copy
import itertools
import random
from ipaddress import IPv4Address
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import local
from ansible_collections.sidecar.mesh.plugins.module_utils.local import allocate, dns_address, map_port, map_ports


def workloads(**replicas: int) -> list[dict[str, Any]]:
    return [{"name": name.replace("_", "-"), "replicas": count, "zones": []} for name, count in replicas.items()]


def addresses(mesh: str, **replicas: int) -> dict[str, str]:
    return {item["name"]: item["address"] for item in allocate(mesh, workloads(**replicas))}


@pytest.mark.parametrize(
    ("port", "mapped"), [(1, 8001), (80, 8080), (443, 8443), (1023, 9023), (1024, 1024), (8080, 8080)]
)
def test_map_port(port: int, mapped: int) -> None:
    assert map_port(port) == mapped


def test_map_ports_finds_every_port_of_this_machine() -> None:
    service = {
        "port": 80,
        "sidecar": {"port": 81, "admin_port": 82, "metrics": {"port": 85}, "routes": [{"prefix": "/"}]},
        "egress": {"port": 83},
        "upstreams": [{"port": 84, "timeout": "80s"}, {"port": None}],
        "environment": {"port": "80", "PORT": "80"},
        "replicas": 3,
        "envoy_patch": {"listener": {"port": 80}},
    }
    before = copy.deepcopy(service)
    assert map_ports(service) == {
        "port": 8080,
        "sidecar": {"port": 8081, "admin_port": 8082, "metrics": {"port": 8085}, "routes": [{"prefix": "/"}]},
        "egress": {"port": 8083},
        "upstreams": [{"port": 8084, "timeout": "80s"}, {"port": None}],
        "environment": {"port": "80", "PORT": "80"},
        "replicas": 3,
        "envoy_patch": {"listener": {"port": 80}},
    }
    assert service == before


@pytest.mark.parametrize(
    "far", [{"port": 80, "endpoints": [{"address": "10.0.0.1", "port": 443}]}, {"port": 443, "host": "api.example.com"}]
)
def test_map_ports_leaves_other_machines_alone(far: dict[str, Any]) -> None:
    assert map_ports([far]) == [far]


def test_replicas_in_the_order_of_the_workloads() -> None:
    found = allocate("demo", workloads(b=2, a=1, none=0))
    assert [(item["name"], item["workload"], item["index"]) for item in found] == [
        ("b-1", "b", 1),
        ("b-2", "b", 2),
        ("a-1", "a", 1),
    ]
    network = found[0]["address"].rpartition(".")[0]
    assert [item["address"] for item in found[:2]] == [f"{network}.1", f"{network}.2"]


@pytest.mark.parametrize(
    ("zones", "expected"), [([], [None, None, None]), (["x"], ["x", "x", "x"]), (["x", "y"], ["x", "y", "x"])]
)
def test_replicas_have_zones_in_turn(zones: list[str], expected: list[str | None]) -> None:
    assert [item["zone"] for item in allocate("demo", [{"name": "a", "replicas": 3, "zones": zones}])] == expected


def test_addresses_stay_when_others_come_and_go() -> None:
    names = [f"s{number}" for number in range(60)]
    everywhere = addresses("demo", **dict.fromkeys(names, 3))
    chance = random.Random(1)
    for _rest in range(20):
        some = chance.sample(names, chance.randint(1, 20))
        chance.shuffle(some)
        found = addresses("demo", **{name: chance.randint(0, 250) for name in some})
        assert {name: found[name] for name in found.keys() & everywhere.keys()}.items() <= everywhere.items()


def test_addresses_are_in_the_loopback_network_and_not_the_systems() -> None:
    found = addresses("demo", **{f"s{number}": 250 for number in range(40)})
    assert len(set(found.values())) == len(found) == 10000
    for address in found.values():
        assert IPv4Address(address).is_loopback
        assert not address.startswith(("127.0.", "127.255."))
        assert address.rpartition(".")[2] not in ("0", "254", "255")


def test_meshes_lie_side_by_side() -> None:
    networks = [
        {address.rpartition(".")[0] for address in addresses(mesh, a=1, b=1).values()} for mesh in ("demo", "other")
    ]
    assert networks[0].isdisjoint(networks[1])
    assert dns_address("demo") != dns_address("other")
    assert dns_address("demo") == dns_address("demo")
    assert dns_address("demo").endswith(".254")


def test_workloads_whose_hashes_collide_get_networks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    last = 254 << 8 | 255
    monkeypatch.setattr(local, "_hash", lambda _rest: last)
    found = addresses("demo", a=1, b=1, c=1)
    assert found == {"a-1": "127.254.255.1", "b-1": "127.1.0.1", "c-1": "127.1.1.1"}


def test_the_hash_is_spread_over_all_networks() -> None:
    numbers = [local._hash(f"demo/{number}") for number in range(20000)]
    assert all(1 << 8 <= number < 255 << 8 for number in numbers)
    tenths = [len(list(group)) for _rest, group in itertools.groupby(sorted(n * 10 // (255 << 8) for n in numbers))]
    assert max(tenths) < 1.2 * min(tenths)
