"""Kubernetes' objects: which there are, what replaces pods, and how pods start, are probed and leave."""

from __future__ import annotations

import copy
import math
import re
import socket
import subprocess
import threading
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.files import proxy_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import LARGEST_CONFIG_MAP, mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_drain import fail_and_wait
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.render import rendered
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError
from ansible_collections.sidecar.mesh.plugins.module_utils.values import seconds

Data = dict[str, Any]

SHOP = """
settings: {engine: kubernetes}
services:
  - name: shop
    image: shop:1
    port: 8080
    replicas: 2
    environment: {FIRST: "$(UPSTREAM_STOCK)", PORT: "9"}
    upstreams: [{service: stock, port: 9001, timeout: 1s}]
  - {name: stock, image: stock:1, port: 8080}
  - {name: plain, image: plain:1, port: 80, sidecar: false}
  - {name: far, port: 80, host: far.example.com}
fronts:
  - {name: front, listeners: [{port: 443, tls: certs}], routes: [{prefix: /, service: shop}]}
"""


def shop(path: str = "", value: Any = None) -> Data:
    """The inventory, with one value of it changed: ``services.0.image``."""
    data: Data = yaml.safe_load(SHOP)
    *folders, last = [int(step) if step.isdigit() else step for step in path.split(".")] if path else [None]
    holder: Any = data
    for step in folders:
        holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
    if last is not None:
        holder[last] = value
    return data


def manifests(data: Data) -> dict[str, dict[str, Data]]:
    """``{workload: {kind: object}}``"""
    model = build_model(data["services"], data.get("fronts"), data["settings"])
    return {item["workload"]: {made["kind"]: made for made in item["objects"]} for item in mesh_manifests(model)}


def pod(objects: dict[str, Data]) -> Data:
    found: Data = objects["Deployment"]["spec"]["template"]["spec"]
    return found


def test_every_workload_has_its_objects_in_the_order_in_which_they_are_needed() -> None:
    found = manifests(shop())
    assert {name: list(objects) for name, objects in found.items()} == {
        "shop": ["ServiceAccount", "ConfigMap", "Service", "PodDisruptionBudget", "Deployment"],
        "stock": ["ServiceAccount", "ConfigMap", "Service", "Deployment"],
        "plain": ["ServiceAccount", "Service", "Deployment"],
        "front": ["ServiceAccount", "ConfigMap", "Service", "Deployment"],
    }
    assert [container["name"] for container in pod(found["plain"])["containers"]] == ["application"]
    assert "initContainers" not in pod(found["plain"])


@pytest.mark.parametrize("replicas", [0, 1, 2])
def test_scaling_replaces_no_pod(replicas: int) -> None:
    before, after = (manifests(data)["shop"] for data in (shop(), shop("services.0.replicas", replicas)))
    assert after["Deployment"]["spec"]["replicas"] == replicas
    assert after["Deployment"]["spec"]["template"] == before["Deployment"]["spec"]["template"]
    assert ("PodDisruptionBudget" in after) == (replicas == 2)


@pytest.mark.parametrize(
    ("path", "value", "renamed"),
    [
        # What a running Envoy takes, and what is no business of its.
        ("services.0.upstreams.0.timeout", "9s", []),
        ("services.1.sidecar.routes", [{"prefix": "/x"}], []),
        ("services.0.image", "shop:2", []),
        ("fronts.0.routes", [{"prefix": "/", "service": "stock"}], []),
        ("settings.dns", {"refresh_rate": "1s"}, []),
        # What it is started with, what its application knows, what is mounted.
        ("services.0.upstreams.0.port", 9002, ["shop"]),
        ("services.1.port", 8081, ["stock"]),
        ("services.1.sidecar.port", 8787, ["stock"]),
        ("services.1.sidecar.health_path", "/alive", ["stock"]),
        ("services.1.sidecar.admin_port", 9900, ["stock"]),
        ("fronts.0.listeners.0.tls", "others", ["front"]),
        ("settings.stats", "all", ["shop", "stock", "front"]),
    ],
)
def test_pods_are_replaced_by_nothing_but_what_they_start_with(path: str, value: Any, renamed: list[str]) -> None:
    before, after = manifests(shop()), manifests(shop(path, value))
    names = {
        name: objects["ConfigMap"]["metadata"]["name"] for name, objects in before.items() if "ConfigMap" in objects
    }
    assert [name for name in names if after[name]["ConfigMap"]["metadata"]["name"] != names[name]] == renamed
    for objects in after.values():
        if "ConfigMap" in objects:
            (volume,) = [item for item in pod(objects)["volumes"] if item["name"] == "mesh-config"]
            assert volume["configMap"]["name"] == objects["ConfigMap"]["metadata"]["name"]


def test_static_delivery_replaces_pods_for_every_change_of_their_configuration() -> None:
    before, after = shop("settings.config_delivery", "static"), shop("settings.config_delivery", "static")
    after["services"][0]["upstreams"][0]["timeout"] = "9s"
    names = [
        [objects["ConfigMap"]["metadata"]["name"] for objects in manifests(data).values() if "ConfigMap" in objects]
        for data in (before, after)
    ]
    assert [old == new for old, new in zip(*names, strict=True)] == [False, True, True]


def test_a_config_map_holds_what_its_envoy_reads() -> None:
    data = shop()
    model = build_model(data["services"], data["fronts"], data["settings"])
    found = manifests(data)
    for proxy in model["proxies"]:
        assert found[proxy["workload"]]["ConfigMap"]["data"] == proxy_files(proxy)


def test_the_application_starts_when_its_sidecar_is_ready_and_listens_where_the_kubelet_asks() -> None:
    spec = pod(manifests(shop())["shop"])
    (sidecar,), (application,) = spec["initContainers"], spec["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert "update_success" in sidecar["startupProbe"]["exec"]["command"][-1]
    assert application["env"] == [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "BIND_ADDRESS", "value": "0.0.0.0"},
        {"name": "UPSTREAM_STOCK", "value": "127.0.0.1:9001"},
        {"name": "FIRST", "value": "$(UPSTREAM_STOCK)"},
        {"name": "PORT", "value": "9"},
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"tcpSocket": {"port": 8080}}),
        ({"protocol": "grpc"}, {"tcpSocket": {"port": 8080}}),
        ({"health_check": {}}, {"httpGet": {"path": "/healthz", "port": 8080}}),
        ({"health_check": "tcp"}, {"tcpSocket": {"port": 8080}}),
        ({"protocol": "grpc", "health_check": {"grpc_service": "a.B"}}, {"grpc": {"port": 8080, "service": "a.B"}}),
        # The kubelet speaks no HTTP/2.
        ({"protocol": "http2", "health_check": {}}, {"tcpSocket": {"port": 8080}}),
        ({"health_check": {}, "probes": {"readiness": {"tcp": True}}}, {"tcpSocket": {"port": 8080}}),
        ({"probes": {"readiness": {"grpc": {"port": 9}}}}, {"grpc": {"port": 9, "service": ""}}),
        ({"probes": {"readiness": {"exec": {"command": ["x"]}}}}, {"exec": {"command": ["x"]}}),
        ({"probes": {"readiness": False}}, None),
    ],
)
def test_readiness_of_an_application(more: Data, expected: Data | None) -> None:
    data = shop()
    data["services"][1] |= more
    probe = pod(manifests(data)["stock"])["containers"][0].get("readinessProbe")
    asked = probe and {key: value for key, value in probe.items() if key in ("tcpSocket", "httpGet", "grpc", "exec")}
    assert asked == expected


@pytest.mark.parametrize(
    ("listeners", "settings", "expected"),
    [
        ([{"port": 80}], {}, ("httpGet", 80, "HTTP")),
        ([{"port": 80, "https_redirect": True}, {"port": 443, "tls": "certs"}], {}, ("httpGet", 443, "HTTPS")),
        ([{"port": 5000, "protocol": "tcp", "service": "queue"}], {}, ("tcpSocket", 9902, None)),
        ([{"port": 5000, "protocol": "tcp", "service": "queue"}], {"metrics": False}, ("tcpSocket", 5000, None)),
    ],
)
def test_an_envoy_is_asked_where_it_answers_itself(listeners: Any, settings: Data, expected: Any) -> None:
    data = shop("settings.config_delivery", "static")
    data["services"].append({"name": "queue", "image": "queue:1", "port": 5672, "protocol": "tcp"})
    data["fronts"][0] |= {"listeners": listeners, **settings}
    if listeners[0].get("protocol") == "tcp":
        del data["fronts"][0]["routes"]
    probe = pod(manifests(data)["front"])["containers"][0]["readinessProbe"]
    (kind,) = probe.keys() & {"httpGet", "tcpSocket"}
    assert (kind, probe[kind]["port"], probe[kind].get("scheme")) == expected


# Leaving


@pytest.mark.parametrize("dns", [{}, {"ttl": "5s", "refresh_rate": "0.5s", "jitter": 0}, {"ttl": "2m"}])
def test_a_pod_serves_on_until_nobody_has_its_address(dns: Data) -> None:
    data = shop("settings.dns", dns)
    data["services"][0]["pod"] = {"stop_timeout": "90s"}
    model = build_model(data["services"], data["fronts"], data["settings"])
    stale = math.ceil(sum(seconds(model["mesh"]["dns"][key]) for key in ("ttl", "refresh_rate", "jitter")))
    found = manifests(data)
    application = pod(found["shop"])["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    sidecar = slept(pod(found["shop"])["initContainers"][0])
    front = slept(pod(found["front"])["containers"][0])
    assert stale < application == sidecar < front
    assert pod(found["shop"])["terminationGracePeriodSeconds"] > application + 90
    assert pod(found["front"])["terminationGracePeriodSeconds"] > front
    # Meanwhile an Envoy refuses its probes on purpose.
    for container in (pod(found["shop"])["initContainers"][0], pod(found["front"])["containers"][0]):
        liveness = container["livenessProbe"]
        assert liveness["periodSeconds"] * liveness["failureThreshold"] > slept(container) + 20


def slept(container: Data) -> int:
    found = re.search(r"exec sleep (\d+)$", container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert found
    return int(found[1])


@pytest.mark.parametrize(
    ("image", "shell"),
    [
        ("docker.io/envoyproxy/envoy:v1.40.0", True),
        ("docker.io/envoyproxy/envoy:distroless-v1.40.0", False),
        ("registry.example.com:5000/envoy-distroless:1", False),
        ("registry.example.com/distroless/envoy:1", True),
    ],
)
def test_an_image_without_a_shell_only_waits(image: str, shell: bool) -> None:
    action = fail_and_wait(image, 9901, 7)["preStop"]
    assert action == ({"exec": action["exec"]} if shell else {"sleep": {"seconds": 7}})


def test_the_shell_asks_envoy_to_fail_its_health_check() -> None:
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _peer = server.accept()
            with connection:
                with connection.makefile("rb") as lines:
                    asked.extend(iter(lines.readline, b"\r\n"))
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nOK\n")

        thread = threading.Thread(target=answer)
        thread.start()
        done = stopped(server.getsockname()[1])
        thread.join()
    assert (done, asked[0]) == (0, b"POST /healthcheck/fail HTTP/1.1\r\n")


def test_the_shell_waits_even_if_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert stopped(port) == 0


def stopped(port: int) -> int:
    """What the hook ends with; after the request only a wait of 0 seconds is left."""
    command = fail_and_wait("envoy:v1", port, 0)["preStop"]["exec"]["command"]
    return subprocess.run(command, check=False, timeout=20, capture_output=True).returncode


# What users add


def test_what_users_say_goes_before_and_labels_of_the_mesh_stay() -> None:
    data = shop()
    data["services"][0] |= {
        "pod": {
            "labels": {"team": "shop"},
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "volume_mounts": [{"name": "scratch", "mountPath": "/tmp"}],
            "security_context": {"runAsUser": 7, "readOnlyRootFilesystem": False},
            "service_account": "mine",
            "topology_spread": [],
        },
        "kubernetes_patch": {
            "deployment": {"spec": {"replicas": None, "template": {"spec": {"hostname": "x"}}}},
            "container": {"stdin": True},
            "envoy": {"lifecycle": None},
        },
    }
    objects = manifests(data)["shop"]
    spec, template = pod(objects), objects["Deployment"]["spec"]["template"]
    assert {"team": "shop", "app": "shop"}.items() <= template["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["selector"] == {"matchLabels": {"app": "shop"}}
    assert [volume["name"] for volume in spec["volumes"]] == ["mesh-config", "scratch"]
    assert spec["containers"][0]["securityContext"]["runAsUser"] == 7
    assert (spec["serviceAccountName"], "ServiceAccount" in objects) == ("mine", False)
    assert "topologySpreadConstraints" not in spec
    assert "replicas" not in objects["Deployment"]["spec"]
    assert (spec["hostname"], spec["containers"][0]["stdin"]) == ("x", True)
    assert "lifecycle" not in spec["initContainers"][0]


def test_a_front_on_host_ports_makes_room_before_it_surges() -> None:
    data = shop("fronts.0.expose", {"host_ports": True})
    objects = manifests(data)["front"]
    assert objects["Service"]["spec"]["type"] == "ClusterIP"
    assert objects["Deployment"]["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    ports = {port["containerPort"]: port.get("hostPort") for port in pod(objects)["containers"][0]["ports"]}
    assert ports == {443: 443, 9902: None}


def test_low_ports_are_opened_by_whoever_needs_them() -> None:
    found = manifests(shop())
    needed = {name: "sysctls" in pod(objects)["securityContext"] for name, objects in found.items()}
    assert needed == {"shop": False, "stock": False, "plain": True, "front": True}


# What is refused


def test_another_engine_has_no_manifests() -> None:
    model = build_model([{"name": "a", "port": 8081, "command": ["x"]}], settings={"engine": "local"})
    with pytest.raises(
        SelectionError, match=r"^mesh_engine: 'local' has no manifests; give a model of engine kubernetes$"
    ):
        mesh_manifests(model)


def test_images_that_nobody_named() -> None:
    data = shop("services.1.image", None)
    data["services"][1]["build"] = "../stock"
    with pytest.raises(ModelError) as error:
        manifests(data)
    assert error.value.problems == [
        "mesh_images.stock: is missing; its image is built, and role images has its reference"
    ]
    data["settings"]["images"] = {"stock": "stock:0a1b"}
    assert pod(manifests(data)["stock"])["containers"][0]["image"] == "stock:0a1b"


def test_a_config_map_that_kubernetes_would_refuse() -> None:
    data = shop()
    path = "/" + "x" * 1000
    data["fronts"][0]["routes"] = [{"path": f"{path}{number}", "service": "shop"} for number in range(1100)]
    with pytest.raises(ModelError) as error:
        manifests(data)
    (problem,) = error.value.problems
    assert re.fullmatch(
        rf"front: its configuration has [\d,]+ bytes, and a ConfigMap takes {LARGEST_CONFIG_MAP:,}; "
        "give it fewer routes or upstreams, such as by a second front proxy",
        problem,
    )


# As files


def test_a_folder_for_each_workload_and_one_kustomization_for_all() -> None:
    data = shop()
    settings = {**data["settings"], "network_policy": False}
    files = rendered(build_model(data["services"], data["fronts"], settings))
    plain = ["deployment.yaml", "kustomization.yaml", "service.yaml", "serviceaccount.yaml"]
    assert sorted(name.removeprefix("manifests/plain/") for name in files if "/plain/" in name) == plain
    assert yaml.safe_load(files["manifests/kustomization.yaml"])["resources"] == ["shop", "stock", "plain", "front"]
    assert yaml.safe_load(files["manifests/plain/kustomization.yaml"])["resources"] == [
        "serviceaccount.yaml",
        "service.yaml",
        "deployment.yaml",
    ]


def test_a_list_without_images_has_envoys_only() -> None:
    files = rendered(build_model([{"name": "a", "port": 80}]))
    assert {name.partition("/")[0] for name in files} == {"proxies"}


def test_the_model_stays_as_it_is() -> None:
    data = shop()
    model = build_model(data["services"], data["fronts"], data["settings"])
    before = copy.deepcopy(model)
    mesh_manifests(model)
    assert model == before
