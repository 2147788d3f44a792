"""Kinds of services, their names, and what a front proxy calls."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import services
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

FAR = {"discovery": "static", "endpoints": [{"address": "10.0.0.1"}]}
NAMES = ["b", "b.default", "b.default.svc", "b.default.svc.cluster.local"]


def model(service: dict[str, Any], *more: dict[str, Any], upstream: dict[str, Any] | None = None) -> dict[str, Any]:
    """The model of a service b, and of a service a if there is an upstream of it."""
    callee = {"name": "b", "port": 81, **service}
    callers = [{"name": "a", "port": 1, "egress": "shared", "upstreams": [upstream]}] if upstream else []
    return build_model([callee, *callers, *more])


@pytest.mark.parametrize(
    ("service", "runs_here", "has_sidecar", "port"),
    [
        ({}, True, True, 8786),
        ({"sidecar": {"port": 9}}, True, True, 9),
        ({"sidecar": False}, True, False, 81),
        (FAR, False, False, 81),
        ({"endpoints": []}, True, True, 8786),
        ({"host": "x.y"}, False, False, 81),
        ({"versions": [{"service": "v", "weight": 1}]}, False, False, 81),
    ],
)
def test_kinds(service: dict[str, Any], runs_here: bool, has_sidecar: bool, port: int) -> None:
    found = model(service, {"name": "v", "port": 1})["services"][0]
    assert (services.runs_here(found), services.has_sidecar(found), services.port(found)) == (
        runs_here,
        has_sidecar,
        port,
    )


def test_who_answers() -> None:
    found = model(
        {"versions": [{"service": "v", "weight": 1}, {"service": "w"}]}, *({"name": n, "port": 1} for n in "vw")
    )
    known = {service["name"]: service for service in found["services"]}
    assert [item["name"] for item in services.answering(known["b"], known)] == ["v", "w"]
    assert services.answering(known["v"], known) == [known["v"]]


@pytest.mark.parametrize(
    ("service", "names"),
    [
        ({}, NAMES),
        ({"host": "x.y"}, ["x.y"]),
        ({"server_names": ["*.x", "y"]}, ["*.x", "y"]),
        ({"host": "x.y", "server_names": ["z"]}, ["z"]),
    ],
)
def test_names_that_clients_of_tls_ask_for(service: dict[str, Any], names: list[str]) -> None:
    found = model({"protocol": "tls", **service})
    assert services.server_names(found["services"][0], found["mesh"]) == names


@pytest.mark.parametrize(
    ("upstream", "service", "expected"),
    [
        ({}, {}, tuple(NAMES)),
        ({}, {"host": "x.y"}, ("x.y",)),
        ({"match": {"hosts": ["x", "y"], "prefix": "/"}}, {}, ("x", "y")),
        ({"match": {"prefix": "/b"}}, {}, ("*",)),
        ({"match": {"headers": [{"name": "x", "exact": "y"}]}}, {"host": "x.y"}, ("*",)),
        ({"match": {"hosts": []}}, {}, tuple(NAMES)),
    ],
)
def test_hosts_of_an_upstream(upstream: dict[str, Any], service: dict[str, Any], expected: tuple[str, ...]) -> None:
    found = model(service, upstream={"service": "b", **upstream})
    callee, caller = found["services"]
    assert services.upstream_hosts(caller["upstreams"][0], callee, found["mesh"]) == expected


def test_services_of_a_front() -> None:
    protocols = {"q": "tcp", "s": "tls", "t": "tls"}
    front = {
        "name": "f",
        "listeners": [
            {"port": 1},
            {"port": 2, "protocol": "tcp", "service": "q"},
            {"port": 3, "protocol": "tls", "services": ["t", "s"]},
        ],
        "routes": [{"path": "/a", "service": "a"}, {"prefix": "/", "service": "b"}],
        "virtual_hosts": [{"name": "v", "domains": ["v"], "routes": [{"prefix": "/", "service": "b"}]}],
    }
    found = build_model([{"name": n, "port": 1, "protocol": protocols.get(n, "http")} for n in "abqst"], [front])
    assert services.front_services(found["front_proxies"][0]) == ["b", "a", "q", "t", "s"]
