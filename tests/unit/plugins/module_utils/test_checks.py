"""Checks of an inventory as probes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.checks import probes
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model

PATHS = {"logs": "/logs", "applications": "/apps", "grpcurl": "/bin/grpcurl"}
INVENTORY = """
services: [{name: echo, command: [x], port: 8081, protocol: grpc, replicas: 2}]
fronts: [{name: edge, replicas: 2, listeners: [{port: 443}], routes: [{prefix: /, service: echo}], admin_port: 9903}]
settings: {engine: local}
"""


VERSIONS = {"one": 9, "two": 1, "asked": 0}


def model() -> dict[str, Any]:
    data = yaml.safe_load(INVENTORY)
    return build_model(data["services"], data["fronts"], data["settings"])


def test_a_request() -> None:
    assert probes(model(), [{"name": "it answers", "url": "http://localhost/"}], PATHS) == [
        {
            "name": "it answers",
            "url": "http://localhost/",
            "command": [],
            "body": None,
            "hostnames": [],
            "logs": [],
            "healthy": [],
        }
    ]


def test_a_grpc_call_that_asks_for_everything() -> None:
    mesh = model()
    address = {replica["name"]: replica["address"] for replica in mesh["replicas"]}
    check = {
        "name": "all echo",
        "grpc": {
            "address": "localhost:8443",
            "method": "api.Echo/Echo",
            "proto": "echo-grpc/proto/echo.proto",
            "message": {"content": "it's"},
        },
        "body": "it's",
        "service": "echo",
        "front": "edge",
        "passes": ["edge", "echo"],
    }
    assert probes(mesh, [check], PATHS) == [
        {
            "name": "all echo",
            "url": None,
            "command": [
                *("/bin/grpcurl", "-v", "-insecure", "-import-path", "/apps/echo-grpc/proto", "-proto", "echo.proto"),
                *("-d", '{"content": "it\'s"}', "localhost:8443", "api.Echo/Echo"),
            ],
            "body": "it's",
            "hostnames": ["echo-1", "echo-2"],
            "logs": [
                {"workload": "edge", "files": ["/logs/edge-1.front.log", "/logs/edge-2.front.log"]},
                {"workload": "echo", "files": ["/logs/echo-1.sidecar.log", "/logs/echo-2.sidecar.log"]},
            ],
            "healthy": [
                {"proxy": name, "admin": f"{address[name]}:9903", "cluster": "echo", "members": 2}
                for name in ("edge-1", "edge-2")
            ],
        }
    ]


def test_all_versions_answer_that_share_the_requests() -> None:
    services = [
        {
            "name": "v",
            "port": 80,
            "versions": [{"service": name, "weight": weight} for name, weight in VERSIONS.items()],
        },
        *({"name": name, "port": 8081, "command": ["x"], "replicas": 2} for name in VERSIONS),
    ]
    front = {"name": "f", "listeners": [{"port": 80}], "routes": [{"prefix": "/", "service": "v"}]}
    check = {"name": "n", "url": "http://localhost/", "service": "v", "front": "f"}
    (probe,) = probes(build_model(services, [front], {"engine": "local"}), [check], PATHS)
    assert probe["hostnames"] == ["one-1", "one-2", "two-1", "two-2"]
    assert [(item["cluster"], item["members"]) for item in probe["healthy"]] == [("one", 2), ("two", 2)]


def test_a_grpc_call_without_tls() -> None:
    grpc = {"address": "a:1", "method": "b.C/D", "proto": "e.proto", "tls": False}
    (probe,) = probes(model(), [{"name": "n", "grpc": grpc}], PATHS)
    assert probe["command"] == [
        *("/bin/grpcurl", "-v", "-plaintext", "-import-path", "/apps", "-proto", "e.proto", "-d", "{}", "a:1", "b.C/D")
    ]


@pytest.mark.parametrize(
    ("checks", "problems"),
    [
        ([{"name": "n"}], ["mesh_checks[0]: give exactly one of url or grpc"]),
        (
            [{"name": "n", "url": "u", "grpc": {"address": "a", "method": "m", "proto": "p"}}],
            ["mesh_checks[0]: give exactly one of url or grpc"],
        ),
        (
            [
                {"name": "n", "url": "u"},
                {"name": "m", "url": "u", "service": "a", "front": "b", "passes": ["c", "echo"]},
            ],
            [
                "mesh_checks[1]: 'a' is not in the mesh",
                "mesh_checks[1]: 'b' is not in the mesh",
                "mesh_checks[1]: 'c' is not in the mesh",
            ],
        ),
        ("u", ["mesh_checks: 'u' is not allowed; give a list"]),
        (
            [{"url": "u", "boddy": "b"}],
            [
                (
                    "mesh_checks[0].boddy: unknown key, did you mean 'body'? "
                    "(known: body, front, grpc, name, passes, service, url)"
                ),
                "mesh_checks[0].name: is missing; give text",
            ],
        ),
        (["u"], ["mesh_checks[0]: 'u' is not allowed; give a dict"]),
    ],
)
def test_mistakes(checks: Any, problems: list[str]) -> None:
    with pytest.raises(ModelError) as error:
        probes(model(), checks, PATHS)
    assert error.value.problems == problems


def test_what_runs_elsewhere_proves_nothing() -> None:
    services = [
        {"name": "echo", "command": ["x"], "port": 8081, "sidecar": False},
        {"name": "out", "port": 443, "host": "api.example.com"},
        {"name": "some", "port": 8081, "versions": [{"service": "echo", "weight": 1}]},
    ]
    built = build_model(services, None, {"engine": "local"})
    assert probes(built, [{"name": "n", "url": "u", "service": "some"}], PATHS)[0]["hostnames"] == ["echo-1"]
    with pytest.raises(ModelError) as error:
        probes(built, [{"name": "n", "url": "u", "service": "out", "passes": ["out", "echo"]}], PATHS)
    assert error.value.problems == [
        "mesh_checks[0].passes: 'out' has no proxy here, and so no access log; remove it",
        "mesh_checks[0].passes: 'echo' has no proxy here, and so no access log; remove it",
        "mesh_checks[0].service: 'out' has no replicas here, which could all answer; remove it",
    ]
