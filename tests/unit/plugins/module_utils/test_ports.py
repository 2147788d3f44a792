"""Listeners with every setting decided: addresses, hosts, chains of connections, and what is let in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

HTTP = {
    "max_request_headers_kb": 60,
    "max_headers": 100,
    "header_underscores": "allow",
    "escaped_slashes": "keep",
    "request_headers_timeout": "10s",
    "request_timeout": "0s",
    "stream_idle_timeout": "300s",
    "idle_timeout": "3600s",
    "max_connection_duration": None,
    "max_concurrent_streams": 100,
    "trusted_hops": 0,
}
LOG = {"format": "text", "fields": None, "extra_fields": {}, "sample": 100}
PLAIN: dict[str, Any] = {
    "address": "0.0.0.0",
    "protocol": "http",
    "virtual_hosts": [],
    "chains": [],
    "tls": None,
    "https_redirect": False,
    "rate_limit": None,
    "max_connections": None,
    "listener_patch": {},
    "http_patch": {},
    "health_path": None,
    "access_log": LOG,
    "http": HTTP,
}


def listeners(inventory: str, name: str = "a") -> dict[str, dict[str, Any]]:
    """The listeners of one proxy by their names."""
    data = yaml.safe_load(inventory)
    model = build_model(data.get("services"), data.get("fronts"), data.get("settings"))
    proxy = next(proxy for proxy in model["proxies"] if proxy["name"] == name)
    return {listener["name"]: listener for listener in proxy["listeners"]}


def service(text: str) -> dict[str, dict[str, Any]]:
    return listeners(f"services: [{{name: a, port: 8081, {text}}}]")


# Ingress


def test_ingress_and_metrics_by_default() -> None:
    found = service("")
    (host,) = found["ingress_8786"].pop("virtual_hosts")
    assert (host["name"], host["domains"], host["patch"], len(host["routes"])) == ("ingress", ["*"], {}, 1)
    rest = {key: value for key, value in PLAIN.items() if key != "virtual_hosts"}
    assert found == {
        "ingress_8786": {
            **rest,
            "name": "ingress_8786",
            "direction": "ingress",
            "port": 8786,
            "health_path": "/healthz",
        },
        "metrics_9902": {
            **PLAIN,
            "name": "metrics_9902",
            "direction": "metrics",
            "port": 9902,
            "access_log": {**LOG, "format": "none"},
        },
    }


@pytest.mark.parametrize(
    ("metrics", "names"), [("false", ["ingress_8786"]), ("{port: 9000}", ["ingress_8786", "metrics_9000"])]
)
def test_metrics_are_a_choice(metrics: str, names: list[str]) -> None:
    assert list(service(f"sidecar: {{metrics: {metrics}}}")) == names


def test_ingress_as_the_service_says() -> None:
    found = service("""
    sidecar: {max_connections: 5, rate_limit: 9, http: {max_headers: 7, escaped_slashes: reject, request_timeout: 1s}},
    envoy_patch: {listener: {l: 1}, http_connection_manager: {h: 1}, virtual_host: {v: 1}}""")["ingress_8786"]
    assert (found["max_connections"], found["rate_limit"]["requests"]) == (5, 9)
    assert found["http"] == {**HTTP, "max_headers": 7, "escaped_slashes": "reject", "request_timeout": "1s"}
    assert (found["listener_patch"], found["http_patch"]) == ({"l": 1}, {"h": 1})
    assert found["virtual_hosts"][0]["patch"] == {"v": 1}


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_connections_to_an_application_are_passed_on(protocol: str) -> None:
    found = service(f"protocol: {protocol}, sidecar: {{max_connections: 5}}")["ingress_8786"]
    assert (found["protocol"], found["virtual_hosts"], found["max_connections"]) == ("tcp", [], 5)
    assert found["chains"] == [
        {
            "server_names": [],
            "clusters": [{"name": "local_app", "weight": 1}],
            "hash_on": None,
            "connects": {"connect_attempts": 1, "idle_timeout": "0s"},
        }
    ]


# Egress

EGRESS = """
services:
  - name: a
    port: 8081
    egress: {mode: shared, port: 15002, envoy_patch: {listener: {l: 2}, http_connection_manager: {h: 2}}}
    sidecar: {access_log: none, http: {stream_idle_timeout: 1s}}
    upstreams:
      - service: b
        port: 9001
        envoy_patch: {listener: {l: 1}, http_connection_manager: {h: 1}, virtual_host: {v: 1}, route: {r: 1}}
      - {service: q, port: 9002, retries: 0, idle_timeout: 2m}
      - {service: c, envoy_patch: {virtual_host: {v: 2}}}
      - {service: d, match: {hosts: [x], prefix: /d}}
      - {service: e, match: {hosts: [x]}}
      - {service: far}
  - {name: b, port: 8081}
  - {name: q, port: 8081, protocol: tcp, lb_policy: maglev, hash_on: {source_ip: true}}
  - {name: c, port: 8081}
  - {name: d, port: 8081}
  - {name: e, port: 8081, protocol: grpc}
  - {name: far, port: 443, host: api.example.com}
"""
SOURCE_IP = {"header": None, "cookie": None, "source_ip": True}


def test_egress_has_a_listener_for_each_upstream_with_a_port_and_one_for_the_rest() -> None:
    found = listeners(EGRESS)
    assert list(found) == ["ingress_8786", "egress_9001", "egress_9002", "egress_15002", "metrics_9902"]
    for name in ("egress_9001", "egress_9002", "egress_15002"):
        assert found[name]["address"] == "127.0.0.1"
        assert found[name]["health_path"] is None
        assert found[name]["access_log"] == {**LOG, "format": "none"}
        assert found[name]["http"]["stream_idle_timeout"] == "1s"
    patches = {name: (found[name]["listener_patch"], found[name]["http_patch"]) for name in found}
    assert patches["egress_9001"] == ({"l": 1}, {"h": 1})
    assert patches["egress_15002"] == ({"l": 2}, {"h": 2})
    (host,) = found["egress_9001"]["virtual_hosts"]
    assert (host["name"], host["domains"], host["patch"]) == ("b", ["*"], {"v": 1})
    assert host["routes"][0]["envoy_patch"] == {"r": 1}
    assert found["egress_9002"]["chains"] == [
        {
            "server_names": [],
            "clusters": [{"name": "q", "weight": 1}],
            "hash_on": SOURCE_IP,
            "connects": {"connect_attempts": 1, "idle_timeout": "120s"},
        }
    ]


def test_the_shared_listener_tells_upstreams_apart_and_answers_what_is_none() -> None:
    *hosts, last = listeners(EGRESS)["egress_15002"]["virtual_hosts"]
    shared = [
        (
            host["name"],
            host["domains"],
            host["patch"],
            [(route["clusters"][0]["name"], route["match"]["prefix"]) for route in host["routes"]],
        )
        for host in hosts
    ]
    assert shared == [
        ("c", ["c", "c.default", "c.default.svc", "c.default.svc.cluster.local"], {"v": 2}, [("c", "/")]),
        ("d", ["x"], {}, [("d", "/d"), ("e", "/")]),
        ("far", ["api.example.com"], {}, [("far", "/")]),
    ]
    assert (last["name"], last["domains"]) == ("no_upstream", ["*"])
    (refusal,) = last["routes"]
    assert refusal["answer"] == {
        "status": 403,
        "body": "sidecar.mesh: no upstream of a has this host; name it in upstreams of mesh_services.\n",
    }


@pytest.mark.parametrize("hosts", ["['*']", "['*', x]", "[x, '*']"])
def test_an_upstream_of_any_host_leaves_none_to_refuse(hosts: str) -> None:
    found = listeners(f"""
services:
  - {{name: a, port: 8081, egress: shared, upstreams: [{{service: c}}, {{service: b, match: {{hosts: {hosts}}}}}]}}
  - {{name: b, port: 8081}}
  - {{name: c, port: 8081}}
""")["egress_15001"]
    assert [host["name"] for host in found["virtual_hosts"]] == ["c", "b"]


TLS = """
services:
  - name: a
    port: 8081
    upstreams:
      - {service: one, port: 9443}
      - {service: plain, port: 9001}
      - {service: two, port: 9443, retries: 5, envoy_patch: {cluster: {c: 1}}}
  - {name: one, port: 443, protocol: tls, host: one.example.com}
  - {name: plain, port: 80}
  - {name: two, port: 443, protocol: tls, server_names: ['*.two.example.com', two.example.com]}
  - {name: three, port: 443, protocol: tls, hash_on: {source_ip: true}, lb_policy: maglev}
  - {name: both, port: 443, protocol: tls, versions: [{service: three, weight: 1}, {service: two, weight: 3}]}
fronts:
  - {name: f, listeners: [{port: 443, protocol: tls, services: [one, both], max_connections: 3}]}
"""


def test_upstreams_of_tls_share_a_port() -> None:
    found = listeners(TLS)
    assert list(found) == ["ingress_8786", "egress_9443", "egress_9001", "metrics_9902"]
    assert found["egress_9443"]["protocol"] == "tls"
    assert [
        (chain["server_names"], chain["clusters"][0]["name"], chain["connects"]["connect_attempts"])
        for chain in found["egress_9443"]["chains"]
    ] == [(["one.example.com"], "one", 3), (["*.two.example.com", "two.example.com"], "two", 6)]


def test_a_front_passes_tls_on_by_name() -> None:
    found = listeners(TLS, "f")["front_443"]
    assert (found["protocol"], found["max_connections"], found["virtual_hosts"]) == ("tls", 3, [])
    assert [(chain["server_names"], chain["clusters"], chain["hash_on"]) for chain in found["chains"]] == [
        (["one.example.com"], [{"name": "one", "weight": 1}], None),
        (
            ["both", "both.default", "both.default.svc", "both.default.svc.cluster.local"],
            [{"name": "three", "weight": 1}, {"name": "two", "weight": 3}],
            SOURCE_IP,
        ),
    ]


# Fronts

FRONT = """
services:
  - {name: a, port: 8081, command: [x]}
  - {name: q, port: 8081, command: [x], protocol: tcp, hash_on: {source_ip: true}}
  - {name: s, port: 8081, command: [x], STREAMS}
fronts:
  - name: f
    replicas: 2
    listeners:
      - {port: 80, https_redirect: true}
      - {port: 443, tls: one, rate_limit: 5, max_connections: 6, envoy_patch: {listener: {l: 1}}}
      - {port: 8444, tls: two, protocol: tcp, service: q}
    virtual_hosts: [{name: v, domains: [v.w], routes: [{prefix: /, service: s}], envoy_patch: {virtual_host: {v: 1}}}]
    routes: [{prefix: /, service: a}]
    upstreams: [{service: q, retries: 1, idle_timeout: 5s, hash_on: {source_ip: true}}]
    http: {trusted_hops: 1}
settings: {engine: local}
"""


def test_the_listeners_of_a_front_share_its_hosts() -> None:
    found = listeners(FRONT.replace("STREAMS", "protocol: http"), "f-1")
    assert {
        name: (item["address"], item["protocol"], item["tls"], item["https_redirect"]) for name, item in found.items()
    } == {
        "front_8080": ("127.0.0.1", "http", None, True),
        "front_8443": ("127.0.0.1", "http", "one", False),
        "front_8444": ("127.0.0.1", "tcp", "two", False),
        "metrics_9902": (found["metrics_9902"]["address"], "http", None, False),
    }
    assert found["metrics_9902"]["address"] != "127.0.0.1"
    shown = [(host["name"], host["domains"], host["patch"]) for host in found["front_8443"]["virtual_hosts"]]
    assert shown == [("v", ["v.w"], {"v": 1}), ("default", ["*"], {})]
    assert found["front_8443"]["virtual_hosts"] == found["front_8080"]["virtual_hosts"]
    limits = [
        (item["max_connections"], item["rate_limit"] and item["rate_limit"]["requests"]) for item in found.values()
    ]
    assert limits == [(None, None), (6, 5), (None, None), (None, None)]
    assert found["front_8443"]["listener_patch"] == {"l": 1}
    assert found["front_8444"]["chains"] == [
        {
            "server_names": [],
            "clusters": [{"name": "q", "weight": 1}],
            "hash_on": SOURCE_IP,
            "connects": {"connect_attempts": 2, "idle_timeout": "5s"},
        }
    ]
    second = listeners(FRONT.replace("STREAMS", "protocol: http"), "f-2")
    assert {item["address"] for item in second.values()} == {second["metrics_9902"]["address"]}


@pytest.mark.parametrize(
    ("streams", "timeout"), [("protocol: http", "300s"), ("protocol: grpc", "0s"), ("websocket: true", "0s")]
)
def test_a_front_is_strict_with_strangers_unless_they_stream(streams: str, timeout: str) -> None:
    found = listeners(FRONT.replace("STREAMS", streams), "f-1")["front_8443"]["http"]
    assert found == {
        **HTTP,
        "trusted_hops": 1,
        "header_underscores": "reject",
        "escaped_slashes": "redirect",
        "request_timeout": timeout,
    }
