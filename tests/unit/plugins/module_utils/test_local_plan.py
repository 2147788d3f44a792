"""What the local engine runs for a model."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.local import dns_address
from ansible_collections.sidecar.mesh.plugins.module_utils.local_plan import (
    environment,
    expand,
    local_plan,
    restart_batches,
    zone,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError

PATHS: dict[str, Any] = {
    "state": "/state",
    "python": "/bin/python",
    "envoy": "/bin/envoy",
    "path": "/opt/bin:/bin",
    "applications": "/opt/applications",
    "dns_server": "/opt/dns_server.py",
    "versions": {"envoy": "e1", "applications": "a1", "dns_server": "d1"},
}
INVENTORY = """
services:
  - name: web
    command: [node, server.js, --port=$(PORT)]
    directory: $(APPLICATIONS)/express
    environment: {NAME: web, GREETING: "I am $(NAME)", UPSTREAMS: "http://$(UPSTREAM_MY_DB)"}
    port: 80
    replicas: 2
    upstreams: [{service: my-db, port: 9001}]
  - {name: my-db, command: [db], port: 8081, sidecar: false}
  - {name: far, port: 8081, discovery: static, endpoints: [{address: 10.0.0.1}]}
fronts:
  - {name: front, listeners: [{port: 80}, {port: 443, tls: certs}], routes: [{prefix: /, service: web}], drain_time: 3s}
settings: {engine: local, name: demo, state_path: /state}
"""


def built(inventory: str = INVENTORY, **more: Any) -> dict[str, Any]:
    data = yaml.safe_load(inventory)
    return build_model(data["services"], data.get("fronts"), {**data["settings"], **more})


def addresses(model: dict[str, Any]) -> dict[str, str]:
    return {replica["name"]: replica["address"] for replica in model["replicas"]}


def programs(model: dict[str, Any], paths: dict[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    return {program["name"]: program for program in local_plan(model, paths or PATHS)["programs"]}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "1two"),
        ("x$(A)y", "x1y"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("a$$b", "a$b"),
        ("$(C)", "$(C)"),
        ("$A ${A} $(A", "$A ${A} $(A"),
        ("$(A B)", "$(A B)"),
        ("$()", "$()"),
        ("$($(A))", "$(1)"),
        ("", ""),
        ("$(D)", "$(A)"),
    ],
)
def test_expand(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "two", "D": "$(A)"}) == expanded


def test_environment_of_a_replica() -> None:
    model = built()
    own = addresses(model)["web-2"]
    assert environment(model["services"][0], model["replicas"][1], PATHS) == {
        "APPLICATIONS": "/opt/applications",
        "BIND_ADDRESS": own,
        "HOSTNAME": "web-2",
        "PATH": "/opt/bin:/bin",
        "POD_NAME": "web-2",
        "PORT": "8080",
        "UPSTREAM_MY_DB": f"{own}:9001",
        "NAME": "web",
        "GREETING": "I am web",
        "UPSTREAMS": f"http://{own}:9001",
    }


def test_an_upstream_on_the_shared_listener_is_called_there() -> None:
    model = built(INVENTORY.replace("port: 9001", "port: null").replace("port: 80\n", "port: 80\n    egress: shared\n"))
    own = addresses(model)["web-1"]
    assert environment(model["services"][0], model["replicas"][0], PATHS)["UPSTREAM_MY_DB"] == f"{own}:15001"


def test_the_inventory_may_say_something_else() -> None:
    model = built(INVENTORY.replace("{NAME: web,", "{PORT: '1', PATH: '/mine:$(PATH)', NAME: $(PORT),"))
    found = environment(model["services"][0], model["replicas"][0], PATHS)
    assert (found["PORT"], found["PATH"], found["NAME"]) == ("1", "/mine:/opt/bin:/bin", "1")


def test_programs_in_the_order_of_their_start() -> None:
    model = built()
    assert [(program["name"], program["priority"]) for program in local_plan(model, PATHS)["programs"]] == [
        ("dns", 1),
        ("my-db-1.application", 10),
        ("web-1.application", 10),
        ("web-2.application", 10),
        ("web-1.sidecar", 20),
        ("web-2.sidecar", 20),
        ("front-1.front", 30),
    ]


def test_another_engine_has_no_local_plan() -> None:
    with pytest.raises(SelectionError) as error:
        local_plan(build_model([{"name": "a", "port": 80}]), PATHS)
    assert str(error.value) == "mesh_engine: 'kubernetes' has no local plan; give a model of engine local"


def test_the_dns_server() -> None:
    address = dns_address("demo")
    assert programs(built())["dns"] == {
        "name": "dns",
        "command": [
            *("/bin/python", "/opt/dns_server.py", "--address", address, "--port", "8053"),
            *("--zone", "/state/zone.json"),
        ],
        "environment": {"SIDECAR_MESH": "/state", "SIDECAR_MESH_VERSION": "d1"},
        "directory": "/state",
        "log": "/state/logs/dns.log",
        "priority": 1,
        "ready": {"tcp": f"{address}:8053"},
        "stop_seconds": 5,
    }


def test_an_application() -> None:
    model = built()
    own = addresses(model)["web-1"]
    found = programs(model)["web-1.application"]
    assert found["command"] == ["node", "server.js", "--port=8080"]
    assert found["directory"] == "/opt/applications/express"
    assert found["ready"] == {"tcp": f"{own}:8080"}
    assert found["log"] == "/state/logs/web-1.application.log"
    assert found["stop_seconds"] == 15
    assert found["environment"]["SIDECAR_MESH_VERSION"] == "a1"
    # One that is not shipped does not start again when the shipped ones change.
    mine = programs(model)["my-db-1.application"]
    assert (mine["directory"], mine["environment"]["SIDECAR_MESH_VERSION"]) == ("/state", "")


def test_an_envoy() -> None:
    model = built()
    own = addresses(model)["front-1"]
    found = programs(model)["front-1.front"]
    assert found["command"][:3] == ["/bin/envoy", "--config-path", "/state/proxies/front-1/bootstrap.yaml"]
    assert found["command"][found["command"].index("--service-node") + 1] == "front-1"
    assert found["ready"] == {"http": f"http://{own}:9901/ready"}
    assert found["drain"] == {"admin": f"{own}:9901", "seconds": 3.0}


def version(inventory: str, paths: dict[str, Any] | None = None, name: str = "web-1.sidecar") -> str:
    found: str = programs(built(inventory), paths)[name]["environment"]["SIDECAR_MESH_VERSION"]
    return found


def test_an_envoy_starts_again_for_its_bootstrap_and_its_binary_only() -> None:
    before = version(INVENTORY)
    assert version(INVENTORY.replace("port: 9001", "port: 9001, timeout: 1s")) == before
    assert version(INVENTORY.replace("replicas: 2", "replicas: 3")) == before
    assert version(INVENTORY.replace("port: 80\n", "port: 80\n    sidecar: {admin_port: 9903}\n")) != before
    assert version(INVENTORY, {**PATHS, "versions": {**PATHS["versions"], "envoy": "e2"}}) != before
    static = INVENTORY.replace("engine: local", "engine: local, config_delivery: static")
    assert version(static) != version(static.replace("port: 9001", "port: 9001, timeout: 1s"))


def test_zone() -> None:
    model = built()
    own = addresses(model)
    assert zone(model) == {
        "ttl": 1,
        "domain": "cluster.local",
        "records": {
            "web.default.svc.cluster.local": [own["web-1"], own["web-2"]],
            "my-db.default.svc.cluster.local": [own["my-db-1"]],
        },
    }


def test_zone_of_another_namespace_with_a_replica_at_rest() -> None:
    model = built(namespace="prod", domain="my.domain", resting=["web-1", "my-db-1"])
    assert zone(model)["records"] == {
        "web.prod.svc.my.domain": [addresses(model)["web-2"]],
        "my-db.prod.svc.my.domain": [],
    }


def test_a_service_without_replicas_has_a_name() -> None:
    records = zone(built(INVENTORY.replace("replicas: 2", "replicas: 0")))["records"]
    assert records["web.default.svc.cluster.local"] == []


def test_listeners_with_the_variable_that_chooses_them() -> None:
    model = built()
    own = addresses(model)
    dns = dns_address("demo")

    def line(item: dict[str, Any]) -> str:
        return f"{item['address']} {item['port']} {item['proto']} {item['owner']}: {item['variable']}"

    assert [line(item) for item in local_plan(model, PATHS)["listeners"]] == [
        f"{dns} 8053 udp the DNS server: mesh_name",
        f"{dns} 8053 tcp the DNS server: mesh_name",
        f"{own['web-1']} 8080 tcp web-1: mesh_services (web): port",
        f"{own['web-2']} 8080 tcp web-2: mesh_services (web): port",
        f"{own['my-db-1']} 8081 tcp my-db-1: mesh_services (my-db): port",
        f"{own['web-1']} 9901 tcp web-1: mesh_services (web): admin_port",
        f"{own['web-1']} 8786 tcp web-1: mesh_services (web): ingress port",
        f"{own['web-1']} 9001 tcp web-1: mesh_services (web): egress port",
        f"{own['web-1']} 9902 tcp web-1: mesh_services (web): metrics port",
        f"{own['web-2']} 9901 tcp web-2: mesh_services (web): admin_port",
        f"{own['web-2']} 8786 tcp web-2: mesh_services (web): ingress port",
        f"{own['web-2']} 9001 tcp web-2: mesh_services (web): egress port",
        f"{own['web-2']} 9902 tcp web-2: mesh_services (web): metrics port",
        f"{own['front-1']} 9901 tcp front-1: mesh_front_proxies (front): admin_port",
        "127.0.0.1 8080 tcp front-1: mesh_front_proxies (front): front port",
        "127.0.0.1 8443 tcp front-1: mesh_front_proxies (front): front port",
        f"{own['front-1']} 9902 tcp front-1: mesh_front_proxies (front): metrics port",
    ]


def test_what_runs_elsewhere_or_is_a_name_only_is_not_run() -> None:
    inventory = INVENTORY.replace(
        "  - {name: far,",
        "  - {name: out, port: 443, host: x.y, tls: {client_certificate: me}}\n"
        "  - {name: db, port: 80, protocol: http, versions: [{service: my-db, weight: 1}]}\n"
        "  - {name: far,",
    ).replace("{service: my-db, port: 9001}", "{service: my-db, port: 9001}, {service: out, port: 9443}")
    model = built(inventory)
    assert set(programs(model)) == set(programs(built()))
    assert set(zone(model)["records"]) == {"web.default.svc.cluster.local", "my-db.default.svc.cluster.local"}
    own = addresses(model)["web-1"]
    assert environment(model["services"][0], model["replicas"][0], PATHS)["UPSTREAM_OUT"] == f"{own}:9443"
    assert local_plan(model, PATHS)["certificates"] == ["certs"]


def test_no_port_is_listed_twice() -> None:
    found = [(item["address"], item["port"], item["proto"]) for item in local_plan(built(), PATHS)["listeners"]]
    assert len(set(found)) == len(found)


def test_shipped_applications_and_certificates() -> None:
    plan = local_plan(built(), PATHS)
    assert (plan["applications"], plan["certificates"]) == (["express"], ["certs"])


@pytest.mark.parametrize(
    ("changed", "batches"),
    [
        ([], []),
        (["dns"], [(["dns"], [])]),
        (["front-1.front"], [(["front-1.front"], [])]),
        (["web-1.sidecar"], [(["web-1.sidecar"], ["web-1"])]),
        (
            ["web-2.sidecar", "web-1.application", "my-db-1.application", "web-1.sidecar", "dns", "web-2.application"],
            [
                (["dns"], []),
                (["web-1.application", "my-db-1.application", "web-1.sidecar"], ["web-1"]),
                (["web-2.sidecar", "web-2.application"], ["web-2"]),
            ],
        ),
        (["gone-7.sidecar"], [(["gone-7.sidecar"], [])]),
    ],
)
def test_one_replica_of_each_workload_at_a_time(changed: list[str], batches: list[tuple[list[str], list[str]]]) -> None:
    expected = [{"programs": programs, "resting": resting} for programs, resting in batches]
    assert restart_batches(built(), changed) == expected


# The control plane


SENT = {
    **PATHS,
    "control_plane": {"python": "/cp/bin/python", "modules": ["/cp", "/cp/app"]},
    "versions": {**PATHS["versions"], "control_plane": "c1"},
}


def test_a_control_plane_is_one_more_program_and_two_more_ports() -> None:
    model = built(config_delivery="ads", control_plane={"port": 443})
    plan = local_plan(model, SENT)
    found = {program["name"]: program for program in plan["programs"]}["control-plane"]
    address = dns_address("demo").rpartition(".")[0] + ".253"
    # Ports below 1024 would need root.
    assert found["command"] == [
        *("/cp/bin/python", "-m", "control_plane", "--listen", f"{address}:8443", "--status", f"{address}:18001"),
        *("--published", "/state/control-plane/published.json", "--zone", "/state/zone.json"),
        *("--suffix", "default.svc.cluster.local", "--token", "/state/control-plane/token"),
    ]
    assert found["environment"]["PYTHONPATH"] == "/cp:/cp/app"
    assert found["ready"] == {"http": f"http://{address}:18001/ready"}
    assert found["first"]
    assert plan["control_plane"] == {
        "wanted": True,
        "published": "/state/control-plane/published.json",
        "status": f"{address}:18001",
    }
    ports = [(item["port"], item["variable"]) for item in plan["listeners"] if item["address"] == address]
    assert ports == [(8443, "mesh_control_plane: port"), (18001, "mesh_control_plane: status_port")]


def test_an_envoy_with_a_control_plane_starts_by_a_shell_that_asks_for_it() -> None:
    command = programs(built(config_delivery="ads"), SENT)["web-1.sidecar"]["command"]
    assert command[:2] == ["bash", "-c"]
    address = dns_address("demo").rpartition(".")[0] + ".253"
    assert command[3:8] == ["/bin/envoy", address, "18000", "10", "/state/proxies/web-1"]


def test_without_it_nothing_of_it_runs() -> None:
    plan = local_plan(built(), PATHS)
    assert not plan["control_plane"]["wanted"]
    assert "control-plane" not in {program["name"] for program in plan["programs"]}
    assert not [item for item in plan["listeners"] if item["address"].endswith(".253")]
