"""A mesh in words."""

from __future__ import annotations

from typing import Any

import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.summary import summary

INVENTORY = """
services:
  - name: web
    command: [x]
    port: 8081
    replicas: 2
    upstreams: [{service: echo, port: 9001}, {service: far, port: 9002}]
  - name: shop
    port: 80
    versions:
      - {service: web, weight: 9}
      - {service: out, weight: 1, headers: [{name: x, exact: y}]}
      - {service: beta, headers: [{name: x, exact: z}], cookie: beta}
  - {name: beta, command: [x], port: 8081, replicas: 0}
  - {name: out, port: 443, host: api.example.com}
  - {name: secret, port: 443, protocol: tls, host: tls.example.com}
  - {name: echo, command: [x], port: 8081, protocol: grpc, sidecar: false}
  - {name: far, port: 80, protocol: tcp, discovery: static, endpoints: [{address: 10.0.0.1}, {address: 10.0.0.2}]}
fronts:
  - name: front
    listeners:
      - {port: 80, https_redirect: true}
      - {port: 443, tls: certs}
      - {port: 9000, protocol: tcp, service: far}
      - {port: 9443, protocol: tls, services: [secret]}
    virtual_hosts: [{name: v, domains: [v.w], routes: [{regex: /r, service: web}]}]
    routes: [{grpc: api.Echo, service: echo}, {path: /exact, service: web}, {prefix: /, service: web}]
settings: {engine: local, name: demo}
"""


def model(inventory: str = INVENTORY) -> dict[str, Any]:
    data = yaml.safe_load(inventory)
    return build_model(data["services"], data.get("fronts"), data["settings"])


def test_summary() -> None:
    mesh = model()
    address = {replica["name"]: replica["address"] for replica in mesh["replicas"]}
    web = f"{address['web-1']} {address['web-2']}"
    assert summary(mesh) == [
        "Mesh 'demo' on engine local",
        "",
        "SERVICE  PROTOCOL  REPLICAS  PORT  CALLS      ADDRESSES",
        f"web      http      2         8786  echo, far  {web}",
        "shop     http      -         -     -          web (9) out (1, by headers) beta (by headers, by cookie)",
        "beta     http      0         8786  -          -",
        "out      http      -         443   -          api.example.com",
        "secret   tls       -         443   -          tls.example.com",
        f"echo     grpc      1         8081  -          {address['echo-1']}",
        "far      tcp       -         80    -          10.0.0.1 10.0.0.2",
        "",
        "FRONT PROXY  URL                     ROUTES",
        "front        http://localhost:8080   to https",
        "front        https://localhost:8443  /r to web, api.Echo to echo, /exact to web, / to web",
        "front        tcp://localhost:9000    all to far",
        "front        tls://localhost:9443    by name to secret",
        "",
        "Try",
        "  curl -k https://localhost:8443/exact",
        "  curl -k https://localhost:8443/",
    ]


def test_the_commands_of_probes_take_the_place_of_others() -> None:
    probes = [
        {"command": [], "url": "http://localhost:8080/a b"},
        {"command": ["grpcurl", "-d", '{"content":"echo"}', "localhost:8443", "api.Echo/Echo"], "url": None},
    ]
    assert summary(model(), probes)[-3:] == [
        "Try",
        "  curl 'http://localhost:8080/a b'",
        '  grpcurl -d \'{"content":"echo"}\' localhost:8443 api.Echo/Echo',
    ]


def test_on_kubernetes_a_front_has_its_name() -> None:
    front = {"name": "front", "listeners": [{"port": 80}], "routes": [{"prefix": "/", "service": "a"}]}
    assert summary(build_model([{"name": "a", "port": 80}], [front], {"namespace": "prod"}))[5:] == [
        "FRONT PROXY  URL                                     ROUTES",
        "front        http://front.prod.svc.cluster.local:80  / to a",
        "",
        "Try",
        "  curl http://front.prod.svc.cluster.local:80/",
    ]


def test_a_mesh_without_anything() -> None:
    assert summary(build_model([])) == ["Mesh 'mesh' on engine kubernetes", "", "", "", "Try"]
