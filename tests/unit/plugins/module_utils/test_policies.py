"""Network policies: who reaches whom by them, for both kinds, and that Cilium takes its own."""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError
from golden.cases import everything, model_of
from jsonschema import Draft7Validator

Data = dict[str, Any]
KINDS = ("cilium", "kubernetes")
CILIUM = Draft7Validator(
    json.loads((Path(__file__).parents[2] / "data" / "ciliumnetworkpolicy.schema.json").read_text(encoding="utf-8"))
)

SHOP = """
settings: {engine: kubernetes, namespace: shop}
services:
  - {name: shop, image: x, port: 8080, upstreams: [{service: stock, port: 9001}, {service: plain, port: 9002}]}
  - {name: stock, port: 1, versions: [{service: old, weight: 1}, {service: new, weight: 1}]}
  - {name: old, image: x, port: 8080}
  - {name: new, image: x, port: 8080, sidecar: {port: 8787}}
  - {name: copy, image: x, port: 8080}
  - {name: plain, image: x, port: 5000, sidecar: false}
  - {name: alone, image: x, port: 8080}
fronts:
  - name: front
    listeners: [{port: 443, tls: certs}]
    routes: [{prefix: /, service: shop, mirror: {service: copy}}]
"""
EDGES = {
    ("front", "shop", 8786),
    ("front", "copy", 8786),
    ("shop", "old", 8786),
    ("shop", "new", 8787),
    ("shop", "plain", 5000),
}
PORTS = (443, 5000, 8080, 8786, 8787, 9901, 9902, 9001)


def policies(data: str | Data, kind: str) -> dict[str, Data]:
    data = yaml.safe_load(data) if isinstance(data, str) else data
    return mesh_policies(build_model(data["services"], data.get("fronts"), data["settings"]), kind)


def one(service: Data, kind: str, **settings: Any) -> Data:
    """The spec of the policy of one service."""
    data = {
        "settings": {"engine": "kubernetes", **settings},
        "services": [{"name": "a", "image": "x", "port": 8081, **service}],
    }
    spec: Data = policies(data, kind)["a"]["spec"]
    return spec


# What a policy lets through, read as the cluster's network does


def passes(policy: Data, direction: str, peer: Data, port: int) -> bool:
    """``peer``: labels and namespace of a pod. Traffic of the nodes and of the world is told by other tests."""
    return any(_rule(rule, direction, peer, port) for rule in policy["spec"][direction])


def _rule(rule: Data, direction: str, peer: Data, port: int) -> bool:
    side = {"ingress": "from", "egress": "to"}[direction]
    cilium = [key for key in rule if key.startswith(side) and key not in ("from", "to", "toPorts")]
    if cilium:
        ports = [item["port"] for group in rule.get("toPorts", []) for item in group["ports"]]
        return (not ports or str(port) in ports) and all(_cilium(key, rule[key], peer) for key in cilium)
    ports = [item["port"] for item in rule.get("ports", [])]
    return (not ports or port in ports) and (side not in rule or any(_kubernetes(item, peer) for item in rule[side]))


def _cilium(key: str, values: list[Any], peer: Data) -> bool:
    if key.endswith("Endpoints"):
        return any(_labels(item, peer) for item in values)
    return key.endswith("Entities") and "all" in values


def _labels(item: Data, peer: Data) -> bool:
    wanted = dict(item.get("matchLabels", {}))
    anywhere = any("namespace" in test["key"] for test in item.get("matchExpressions", []))
    namespace = wanted.pop("k8s:io.kubernetes.pod.namespace", "shop")
    return (anywhere or namespace == peer["namespace"]) and wanted.items() <= peer["labels"].items()


def _kubernetes(item: Data, peer: Data) -> bool:
    if "ipBlock" in item:
        return False
    names = item["namespaceSelector"].get("matchLabels", {}) if "namespaceSelector" in item else {"x": "shop"}
    inside = all(name == peer["namespace"] for name in names.values())
    return inside and item.get("podSelector", {}).get("matchLabels", {}).items() <= peer["labels"].items()


def pod(name: str, namespace: str = "shop", **labels: str) -> Data:
    return {"labels": {"app": name, **labels}, "namespace": namespace}


@pytest.mark.parametrize("kind", KINDS)
def test_every_edge_is_open_and_no_other(kind: str) -> None:
    found = policies(SHOP, kind)
    names = list(found)
    assert names == ["shop", "old", "new", "copy", "plain", "alone", "front"]
    reached = {
        (caller, callee, port)
        for caller, callee, port in itertools.product(names, names, PORTS)
        if caller != callee
        and passes(found[caller], "egress", pod(callee), port)
        and passes(found[callee], "ingress", pod(caller), port)
    }
    # Egress is closed to all that is open to anyone: a front's port, and metrics.
    assert reached == EDGES
    opened = {
        (callee, port) for callee in names for port in PORTS if passes(found[callee], "ingress", pod("x", "else"), port)
    }
    metrics = {(name, 9902) for name in names if name != "plain"}
    assert opened == {("front", 443), *metrics}


@pytest.mark.parametrize("kind", KINDS)
def test_dns_is_open_to_everyone(kind: str) -> None:
    for policy in policies(SHOP, kind).values():
        assert passes(policy, "egress", pod("x", "kube-system", **{"k8s-app": "kube-dns"}), 53)
        assert not passes(policy, "egress", pod("x", "kube-system", **{"k8s-app": "kube-dns"}), 80)
        assert not passes(policy, "egress", pod("x", "kube-system"), 53)


def test_s1_pods_of_my_client_and_of_nobody_else_reach_port_80_of_my_service() -> None:
    spec = one({"name": "a", "sidecar": {"port": 80}, "allow_from": [{"app": "my-client"}]}, "cilium")
    assert spec["endpointSelector"] == {"matchLabels": {"app": "a"}}
    assert spec["ingress"][0] == {
        "fromEndpoints": [{"matchLabels": {"app": "my-client"}}],
        "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("allowed", "let_in", "kept_out"),
    [
        ("client", pod("client"), pod("client", "else")),
        ({"app": "client", "namespace": "else"}, pod("client", "else"), pod("client")),
        ({"pods": {"role": "x"}}, pod("client", role="x"), pod("client")),
        ({"app": "client", "pods": {"role": "x"}}, pod("client", role="x"), pod("other", role="x")),
        ({"namespace": "else"}, pod("any", "else"), pod("any")),
        ({"app": "client", "namespace": "*"}, pod("client", "anywhere"), pod("other", "anywhere")),
    ],
)
def test_who_else_may_call(allowed: Any, let_in: Data, kept_out: Data, kind: str) -> None:
    policy = {"spec": one({"allow_from": [allowed]}, kind, namespace="shop")}
    assert passes(policy, "ingress", let_in, 8786)
    assert not passes(policy, "ingress", let_in, 8081)
    assert not passes(policy, "ingress", kept_out, 8786)


def test_the_kubelet_reaches_what_it_probes() -> None:
    spec = one({"probes": {"liveness": {"http": {"path": "/", "port": 9000}}}}, "cilium")
    (rule,) = [rule for rule in spec["ingress"] if rule.get("fromEntities") == ["host"]]
    assert [item["port"] for item in rule["toPorts"][0]["ports"]] == ["8081", "8786", "9000"]


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_are_for_those_that_are_named(kind: str) -> None:
    prometheus = {"app": "prometheus", "namespace": "monitoring"}
    policy = {"spec": one({}, kind, namespace="shop", network_policy={"metrics_from": [prometheus]})}
    assert passes(policy, "ingress", pod("prometheus", "monitoring"), 9902)
    assert not passes(policy, "ingress", pod("x"), 9902)
    if kind == "cilium":
        assert {"fromEntities": ["host", "kube-apiserver", "remote-node"], "toPorts": [_port(9902)]} in policy["spec"][
            "ingress"
        ]


def _port(port: int) -> Data:
    return {"ports": [{"port": str(port), "protocol": "TCP"}]}


OUTSIDE = [
    {"host": "api.example.com", "ports": [443]},
    {"host": "db.data.svc.cluster.local", "ports": [5432]},
    {"host": "db.more.svc", "ports": [5432]},
    {"cidr": "192.0.2.0/24"},
]


def test_names_and_networks_outside_by_cilium() -> None:
    spec = one({"allow_to": OUTSIDE}, "cilium")
    assert spec["egress"][1:] == [
        {"toFQDNs": [{"matchName": "api.example.com"}], "toPorts": [_port(443)]},
        # A Service's port need not be that of its pods.
        {"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "data"}}]},
        {"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "more"}}]},
        {"toCIDR": ["192.0.2.0/24"]},
    ]
    # Names are known from answers of DNS, which are read only where they are needed.
    assert spec["egress"][0]["toPorts"][0]["rules"] == {"dns": [{"matchPattern": "*"}]}
    assert "rules" not in one({}, "cilium")["egress"][0]["toPorts"][0]


def test_names_and_networks_outside_by_kubernetes() -> None:
    spec = one({"allow_to": OUTSIDE}, "kubernetes")
    data, more = (
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in ("data", "more")
    )
    assert spec["egress"][1:] == [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443, "protocol": "TCP"}]},
        {"to": [{**data, "podSelector": {}}]},
        {"to": [{**more, "podSelector": {}}]},
        {"to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    ]


def test_upstreams_outside_the_mesh() -> None:
    data = yaml.safe_load(SHOP)
    data["services"][0]["upstreams"] += [{"service": "bank", "port": 9003}, {"service": "far", "port": 9004}]
    data["services"] += [
        {"name": "bank", "host": "bank.example.com", "port": 443},
        {"name": "far", "port": 80, "discovery": "static", "endpoints": [{"address": "192.0.2.7", "port": 81}]},
    ]
    egress = policies(data, "cilium")["shop"]["spec"]["egress"]
    assert {"toFQDNs": [{"matchName": "bank.example.com"}], "toPorts": [_port(443)]} in egress
    assert {"toCIDR": ["192.0.2.7/32"], "toPorts": [_port(81)]} in egress


def test_names_change_with_the_rules_and_with_nothing_else() -> None:
    names = [
        {name: policy["metadata"]["name"] for name, policy in policies(text, "cilium").items()}
        for text in (SHOP, SHOP.replace("port: 8787", "port: 8788"), SHOP.replace("image: x", "image: y"))
    ]
    assert [name for name in names[0] if names[0][name] != names[1][name]] == ["shop", "new"]
    assert names[0] == names[2]


def test_nobody_reaches_a_service_that_nobody_names() -> None:
    """A rule is needed all the same: without any Cilium takes the policy for none."""
    service = {"sidecar": False, "probes": {"readiness": False}}
    assert one(service, "cilium")["ingress"] == [{}]
    assert one(service, "kubernetes")["ingress"] == []


def golden() -> Iterator[tuple[str, Data]]:
    yield from ((name, data) for name, data in everything().items() if data.get("mesh_engine") == "kubernetes")


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in golden()])
def test_cilium_takes_them(data: Data) -> None:
    for policy in mesh_policies(model_of(data), "cilium").values():
        assert [error.json_path for error in CILIUM.iter_errors(policy)] == []
        for rule in [*policy["spec"]["ingress"], *policy["spec"]["egress"]]:
            assert all(ipaddress.ip_network(network) for network in rule.get("toCIDR", []))
            assert len(set(rule) - {"toPorts"}) <= 1


def test_the_schema_refuses_what_cilium_does_not_know() -> None:
    policy = policies(SHOP, "cilium")["shop"]
    policy["spec"]["ingress"][0]["fromEndpoint"] = []
    assert [error.json_path for error in CILIUM.iter_errors(policy)] == ["$.spec.ingress[0]"]


def test_kinds() -> None:
    data = yaml.safe_load(SHOP)
    settings = data["settings"]

    def kinds(network_policy: Any, kind: str | None = None) -> set[str]:
        model = build_model(data["services"], data["fronts"], {**settings, "network_policy": network_policy})
        return {policy["kind"] for policy in mesh_policies(model, kind).values()}

    assert kinds({}) == {"NetworkPolicy"}
    assert kinds({"kind": "cilium"}) == {"CiliumNetworkPolicy"}
    assert kinds({}, "cilium") == {"CiliumNetworkPolicy"}
    assert kinds(False) == set()
    with pytest.raises(SelectionError, match=r"^kind: 'calico' is not allowed; give cilium or kubernetes$"):
        kinds({}, "calico")


def test_another_engine_has_no_policies() -> None:
    model = build_model([{"name": "a", "port": 8081, "command": ["x"]}], settings={"engine": "local"})
    with pytest.raises(SelectionError, match=r"^mesh_engine: 'local' has no policies; give a model of engine kuber"):
        mesh_policies(model)
