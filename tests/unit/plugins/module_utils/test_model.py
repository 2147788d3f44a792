"""The model as a whole: what a short inventory becomes, and that the input stays as it is."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.check import check
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.schema import SERVICE
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import INGRESS_ROUTE

SHORTEST: list[dict[str, Any]] = [{"name": "a", "port": 80}]
RICH = yaml.safe_load("""
services:
  - name: a
    port: 80
    command: [x]
    environment: {A: "1", B: $(A)}
    egress: {mode: shared, port: 15001}
    sidecar:
      port: 81
      access_log: {format: text, extra_fields: {b: "1", a: "2"}}
      routes: [{prefix: /, headers: [{name: x, exact: y}], fault: {delay: 1s, abort: 503}}]
      rate_limit: {requests: 9, burst: 99}
      circuit_breakers: {max_requests: 9, retry_budget: {percent: 9}}
    upstreams:
      - service: b
        timeout: 1s
        retries: {count: 1, on: [reset], backoff: {base: 1s, max: 2s}}
        request_headers: {set: {z: "1", a: "2"}, remove: [b]}
        outlier_detection: {errors: [429], success_rate: true}
        connection: {max_requests: 9, tcp_keepalive: {probes: 9, time: 9}}
        envoy_patch: {cluster: {z: {y: 1, x: null}, a: [1]}}
      - {service: c, port: 82}
      - {service: v, port: 87, mirror: {service: b, percent: 9}}
  - {name: v, port: 88, versions: [{service: b, weight: 9}, {service: out, cookie: {value: y, name: x}, weight: 1}]}
  - {name: out, port: 443, host: x.y, tls: {client_certificate: me, ca_file: /ca.crt}}
  - name: b
    port: 83
    command: [x]
    replicas: 2
    health_check: {type: http, path: /h}
    lb_policy: maglev
    hash_on: {header: h}
  - {name: c, port: 84, command: [x], protocol: tcp, discovery: eds, endpoints: [{address: 10.0.0.1, port: 85}]}
fronts:
  - name: f
    replicas: 2
    listeners: [{port: 443, tls: {secret: s}}, {port: 86, protocol: tcp, service: c}]
    virtual_hosts: [{name: v, domains: [v.w], routes: [{grpc: a.B, service: b}]}]
    routes: [{prefix: /, service: a, idempotent: true}]
    upstreams: [{service: b, discovery: static, timeout: 3s}]
settings: {name: m, engine: local, state_path: /s, dns: {refresh_rate: 1s, jitter: 0}}
""")


def test_name_and_port_are_a_complete_service() -> None:
    model = build_model(SHORTEST)
    assert sorted(model) == ["front_proxies", "mesh", "proxies", "replicas", "services"]
    assert model["mesh"] == {
        "name": "mesh",
        "engine": "kubernetes",
        "namespace": "default",
        "domain": "cluster.local",
        "config_delivery": "files",
        "control_plane": {
            "replicas": 2,
            "port": 18000,
            "status_port": 18001,
            "image": "",
            "cluster_role_binding": True,
            "patience": "10s",
        },
        "dns": {
            "refresh_rate": "5s",
            "jitter": "1s",
            "ttl": "30s",
            "query_timeout": "2s",
            "query_tries": 2,
            "resolvers": [],
        },
        "tracing": False,
        "stats": {"keep": "dashboards", "also": []},
        "envoy_image": "docker.io/envoyproxy/envoy:v1.40.0",
        "image_pull_secrets": [],
        "images": {},
        "network_policy": {
            "kind": "auto",
            "metrics_from": [],
            "dns": [{"app": None, "pods": {"k8s-app": "kube-dns"}, "namespace": "kube-system", "cidr": None}],
        },
        "ca_file": "/etc/ssl/certs/ca-certificates.crt",
        "resting": [],
        "state_path": "",
    }
    (service,) = model["services"]
    sidecar = service.pop("sidecar")
    assert service == {
        **dict.fromkeys(SERVICE["fields"].keys() - {"sidecar"}),
        "name": "a",
        "environment": {},
        "port": 80,
        "protocol": "http",
        "websocket": False,
        "replicas": 1,
        "egress": {"mode": "per_upstream", "port": 15001, "envoy_patch": None},
        "upstreams": [],
        "discovery": "dns",
        "lb_policy": "round_robin",
        "zones": [],
        "probes": {"startup": None, "readiness": None, "liveness": None},
        "pod": check({}, SERVICE["fields"]["pod"], "", []),
        "allow_from": [],
        "allow_to": [],
    }
    assert {key: sidecar.pop(key) for key in ("rate_limit", "max_connections", "circuit_breakers")} == dict.fromkeys(
        ("rate_limit", "max_connections", "circuit_breakers")
    )
    assert sidecar.pop("routes") == [{**dict.fromkeys(INGRESS_ROUTE["fields"]), "prefix": "/"}]
    assert sidecar.pop("port") == 8786
    assert sidecar == model["proxies"][0]["envoy"]
    assert model["front_proxies"] == []
    assert model["replicas"] == []
    assert [proxy["name"] for proxy in model["proxies"]] == ["a"]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"health_check": "http"}, {"health_check": {"type": "http"}}),
        ({"egress": "shared"}, {"egress": {"mode": "shared"}}),
        ({"sidecar": True}, {"sidecar": {}}),
        ({"sidecar": {"access_log": "json"}}, {"sidecar": {"access_log": {"format": "json"}}}),
        ({"connect_timeout": 0.25}, {"connect_timeout": "250ms"}),
        ({"port": "80"}, {"port": 80}),
        ({"upstreams": None}, {}),
        ({"discovery": None}, {"discovery": "dns"}),
        ({"circuit_breakers": 9}, {"circuit_breakers": {"max_requests": 9}}),
        ({"outlier_detection": True}, {"outlier_detection": {}}),
        ({"slow_start": "1m"}, {"slow_start": {"window": "60s"}}),
        ({"sidecar": {"metrics": True, "rate_limit": 9}}, {"sidecar": {"metrics": {}, "rate_limit": {"requests": 9}}}),
    ],
)
def test_short_and_long_are_the_same(short: dict[str, Any], long: dict[str, Any]) -> None:
    assert build_model([{**SHORTEST[0], **short}]) == build_model([{**SHORTEST[0], **long}])


@pytest.mark.parametrize(("short", "long"), [(3, {"count": 3}), ({"on": ["reset"]}, {True: ["reset"]})])
def test_short_retries(short: Any, long: Any) -> None:
    def model(retries: Any) -> Any:
        callee = {"name": "b", "port": 80}
        return build_model([{**SHORTEST[0], "upstreams": [{"service": "b", "port": 90, "retries": retries}]}, callee])

    assert model(short) == model(long)


def test_a_front_with_short_tls() -> None:
    def model(tls: Any) -> Any:
        front = {"name": "f", "listeners": [{"port": 1, "tls": tls}], "routes": [{"prefix": "/", "service": "a"}]}
        return build_model(SHORTEST, [front])

    assert model("envoy-certs") == model({}) == model({"secret": "envoy-certs"})
    assert model({})["proxies"][1]["secrets"] == ["envoy-certs"]


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_a_mesh_too(nothing: Any) -> None:
    model = build_model(nothing, nothing)
    assert (model["services"], model["proxies"]) == ([], [])


@pytest.mark.parametrize(
    ("services", "fronts", "line"),
    [
        ({"a": {"port": 1}}, None, "mesh_services: {'a': {'port': 1}} is not allowed; give a list"),
        ("a", None, "mesh_services: 'a' is not allowed; give a list"),
        (SHORTEST, {"f": 1}, "mesh_front_proxies: {'f': 1} is not allowed; give a list"),
    ],
)
def test_what_is_no_list_is_the_only_mistake(services: Any, fronts: Any, line: str) -> None:
    with pytest.raises(ModelError) as error:
        build_model(services, fronts, {"engine": "local"})
    assert str(error.value) == f"The mesh inventory has 1 problem:\n  {line}"
    assert error.value.problems == [line]


@pytest.mark.parametrize(
    ("settings", "problems"),
    [
        (
            {"name": "My mesh"},
            [
                (
                    "mesh_name: 'My mesh' is not allowed; give lower-case letters, digits and '-', starting "
                    "with a letter, at most 63 characters"
                )
            ],
        ),
        ({"engine": "docker"}, ["mesh_engine: 'docker' is not allowed; give kubernetes or local"]),
        ({"config_delivery": "rest"}, ["mesh_config_delivery: 'rest' is not allowed; give files, static or ads"]),
        (
            {"dns": {"refresh": 1}},
            [
                (
                    "mesh_dns.refresh: unknown key, did you mean 'refresh_rate'? (known: jitter, "
                    "query_timeout, query_tries, refresh_rate, resolvers, ttl)"
                )
            ],
        ),
        (
            {"dns": {"resolvers": [{"address": "dns"}]}},
            ["mesh_dns.resolvers[0].address: 'dns' is not allowed; give an IP address"],
        ),
        (
            {"domain": "cluster.local."},
            ["mesh_domain: 'cluster.local.' is not allowed; give a DNS domain without a trailing dot"],
        ),
        ({"resting": "a-1"}, ["mesh_resting: 'a-1' is not allowed; give a list"]),
    ],
)
def test_mistakes_of_settings_are_told_by_their_variable(settings: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        build_model(None, None, settings)
    assert error.value.problems == problems


def test_the_inventory_is_not_changed() -> None:
    given = copy.deepcopy(RICH)
    first = build_model(given["services"], given["fronts"], given["settings"])
    assert given == RICH
    before = copy.deepcopy(first)
    mesh_files(first)
    assert first == before


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same data with every dict in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: shuffled(value[key], chance) for key in keys}
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_keys_makes_no_difference_to_any_byte(seed: int) -> None:
    other = shuffled(RICH, random.Random(seed))
    assert other == RICH
    files = [mesh_files(build_model(it["services"], it["fronts"], it["settings"])) for it in (RICH, other)]
    assert files[0] == files[1]
    assert [list(proxy["files"].values()) for proxy in files[0]] == [
        list(proxy["files"].values()) for proxy in files[1]
    ]


def test_on_the_local_engine_each_replica_has_its_proxy() -> None:
    model = build_model(RICH["services"], RICH["fronts"], RICH["settings"])
    assert [(p["name"], p["workload"], p["kind"], p["index"]) for p in model["proxies"]] == [
        ("a-1", "a", "sidecar", 1),
        ("b-1", "b", "sidecar", 1),
        ("b-2", "b", "sidecar", 2),
        ("f-1", "f", "front", 1),
        ("f-2", "f", "front", 2),
    ]
    assert [replica["name"] for replica in model["replicas"]] == ["a-1", "b-1", "b-2", "f-1", "f-2"]


def test_on_kubernetes_replicas_share_a_configuration() -> None:
    services = [{**service, "image": "x"} for service in RICH["services"]]
    model = build_model(services, [{**RICH["fronts"][0], "upstreams": []}], {"engine": "kubernetes"})
    assert [(p["name"], p["index"]) for p in model["proxies"]] == [("a", None), ("b", None), ("f", None)]
    assert model["replicas"] == []


def test_privileged_ports_are_raised_on_the_local_engine_only() -> None:
    local = build_model(RICH["services"], RICH["fronts"], RICH["settings"])
    ports = {listener["port"] for proxy in local["proxies"] for listener in proxy["listeners"]}
    assert ports == {8081, 8082, 8087, 15001, 8786, 8443, 8086, 9902}
    # What runs elsewhere listens where it listens.
    assert next(item for item in local["services"] if item["name"] == "c")["endpoints"] == [
        {"address": "10.0.0.1", "port": 85, "zone": None}
    ]
    kubernetes = build_model([{"name": "a", "port": 80, "sidecar": {"port": 443}}])
    assert kubernetes["proxies"][0]["listeners"][0]["port"] == 443
