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
            "front": None,
            "body": None,
            "hostnames": [],
            "pods": [],
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
            "front": None,
            "body": "it's",
            "hostnames": ["echo-1", "echo-2"],
            "pods": [],
            "logs": [
                {"workload": "edge", "files": ["/logs/edge-1.front.log", "/logs/edge-2.front.log"]},
                {"workload": "echo", "files": ["/logs/echo-1.sidecar.log", "/logs/echo-2.sidecar.log"]},
            ],
            "healthy": [
                {"proxy": name, "admin": f"{address[name]}:9903", "metrics": None, "cluster": "echo", "members": 2}
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


FRONTS = [
    {
        "name": "one",
        "listeners": [{"port": 443, "tls": {"secret": "s"}}],
        "routes": [{"prefix": "/", "service": "echo"}],
    },
    {
        "name": "two",
        "replicas": 2,
        "listeners": [{"port": 80}, {"port": 8001}],
        "routes": [{"prefix": "/", "service": "echo"}],
    },
]


def with_fronts(engine: str, **front: Any) -> dict[str, Any]:
    services = [{"name": "echo", "command": ["x"], "image": "i", "port": 8081, "replicas": 2}]
    return build_model(services, [FRONTS[0], {**FRONTS[1], **front}], {"engine": engine})


@pytest.mark.parametrize(
    ("url", "local", "front"),
    [
        ("http://localhost:8080/a", "http://localhost:8080/a", None),
        ("http://two/a?b=c", "http://localhost:8080/a?b=c", {"name": "two", "port": 80}),
        ("http://two:80/", "http://localhost:8080/", {"name": "two", "port": 80}),
        ("http://two:8001/", "http://localhost:8001/", {"name": "two", "port": 8001}),
        ("https://one/", "https://localhost:8443/", {"name": "one", "port": 443}),
        ("https://one:443/", "https://localhost:8443/", {"name": "one", "port": 443}),
    ],
)
def test_front_proxies_have_their_name_on_both_engines(url: str, local: str, front: Any) -> None:
    check = {"name": "n", "url": url}
    (here,) = probes(with_fronts("local"), [check], PATHS)
    (there,) = probes(with_fronts("kubernetes"), [check], PATHS)
    assert (here["url"], here["front"]) == (local, None)
    assert (there["url"], there["front"]) == (url, front)


def test_a_grpc_call_of_a_front_proxy() -> None:
    call = {"address": "one:443", "method": "b.C/D", "proto": "e.proto"}
    (here,) = probes(with_fronts("local"), [{"name": "n", "grpc": call}], PATHS)
    (there,) = probes(with_fronts("kubernetes"), [{"name": "n", "grpc": {**call, "address": "one"}}], PATHS)
    assert here["command"][-2:] == ["localhost:8443", "b.C/D"]
    assert there["command"][-2:] == ["one", "b.C/D"]
    assert there["front"] == {"name": "one", "port": 443}


def test_what_is_asked_of_pods() -> None:
    check = {"name": "n", "url": "http://two/", "service": "echo", "front": "two", "passes": ["two"]}
    (probe,) = probes(with_fronts("kubernetes"), [check], {"applications": "/apps", "grpcurl": "grpcurl"})
    assert probe["hostnames"] == []
    assert probe["pods"] == [{"workload": "echo", "replicas": 2}]
    assert probe["logs"] == [{"workload": "two", "files": []}]
    assert probe["healthy"] == [{"proxy": "two", "admin": None, "metrics": 9902, "cluster": "echo", "members": 2}]


@pytest.mark.parametrize(
    ("check", "problem"),
    [
        ({"url": "http://two:81/"}, "url: 'two' has no listener on port 81; give one of its ports (80, 8001)"),
        ({"url": "http://two:x/"}, "url: 'two' has no listener on port 0; give one of its ports (80, 8001)"),
        ({"url": "https://two/"}, "url: 'two' has several listeners; give one of its ports (80, 8001)"),
        (
            {"grpc": {"address": "two", "method": "m", "proto": "p"}},
            "grpc.address: 'two' has several listeners; give one of its ports (80, 8001)",
        ),
    ],
)
def test_ports_that_a_front_proxy_has_not(check: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError) as error:
        probes(with_fronts("kubernetes"), [{"name": "n", **check}], PATHS)
    assert error.value.problems == [f"mesh_checks[0].{problem}"]
