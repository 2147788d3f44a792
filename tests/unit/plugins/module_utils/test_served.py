"""Which certificates front proxies serve, for which names."""

from __future__ import annotations

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.served import mesh_certificates

SERVICES = [{"name": "stock", "port": 8080, "image": "stock:1", "command": ["stock"]}]
ROUTES = [{"prefix": "/", "service": "stock"}]


def front(name: str, *listeners: object, **settings: object) -> dict[str, object]:
    return {"name": name, "listeners": [{"port": 80}, *listeners], "routes": ROUTES, **settings}


@pytest.mark.parametrize(
    ("fronts", "engine", "expected"),
    [
        ([front("plain")], "kubernetes", {}),
        (
            [front("edge", {"port": 443, "tls": "certs"})],
            "kubernetes",
            {"certs": ["DNS:edge", "DNS:edge.shop", "DNS:edge.shop.svc", "DNS:edge.shop.svc.cluster.local"]},
        ),
        ([front("edge", {"port": 443, "tls": "certs"})], "local", {"certs": []}),
        (
            [
                front("one", {"port": 443, "tls": "certs"}),
                {**front("two"), "listeners": [{"port": 9443, "tls": "certs"}, {"port": 9444, "tls": "more"}]},
            ],
            "local",
            {"certs": [], "more": []},
        ),
        (
            [
                front(
                    "edge",
                    {"port": 443, "tls": "certs"},
                    virtual_hosts=[
                        {"name": "shop", "domains": ["shop.example.com", "*.example.com"], "routes": ROUTES},
                        {"name": "odd", "domains": ["shop.example.org:8080", "*-eu.example.com"], "routes": ROUTES},
                    ],
                )
            ],
            "local",
            {"certs": ["DNS:*.example.com", "DNS:shop.example.com"]},
        ),
    ],
)
def test_certificates_are_for_the_names_that_clients_ask_for(
    fronts: list[object], engine: str, expected: dict[str, list[str]]
) -> None:
    model = build_model(SERVICES, fronts, {"engine": engine, "namespace": "shop"})
    assert mesh_certificates(model) == expected


def test_an_authority_that_everybody_trusts_signs_no_names_of_services() -> None:
    hosts = [{"name": "shop", "domains": ["shop.example.com"], "routes": ROUTES}]
    edge = front("edge", {"port": 443, "tls": "certs"}, virtual_hosts=hosts)
    model = build_model(SERVICES, [edge], {"engine": "kubernetes", "namespace": "shop"})
    assert mesh_certificates(model, in_cluster=False) == {"certs": ["DNS:shop.example.com"]}
