"""What a control plane sends: the files of a proxy, with replicas instead of names."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import Asked, asked_for, assignments, read, sent
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

SUFFIX = "default.svc.cluster.local"
ADS = {"ads": {}, "resource_api_version": "V3"}
SERVICES = [
    {
        "name": "a",
        "port": 8081,
        "upstreams": [
            {"service": "b", "port": 9001},
            {"service": "far", "port": 9002},
            {"service": "other", "port": 9003},
            {"service": "fixed", "port": 9004, "discovery": "eds"},
        ],
    },
    {"name": "b", "port": 8082},
    {"name": "far", "port": 443, "host": "api.example.com", "tls": True},
    {"name": "other", "port": 80, "host": "other.team.svc.cluster.local"},
    {"name": "fixed", "port": 80, "discovery": "eds", "endpoints": [{"address": "192.0.2.7"}]},
]


def files() -> dict[str, str]:
    (made,) = (item for item in mesh_files(build_model(SERVICES)) if item["name"] == "a")
    return dict(made["files"])


def all_sent(replicas: Any) -> Any:
    resources = read(files())
    asked = asked_for(resources, SUFFIX)
    found = sent(resources, asked)
    return {**found, "endpoints": {**found["endpoints"], **assignments(asked, replicas)}}


def addresses(assignment: dict[str, Any]) -> list[Any]:
    hosts = [host for group in assignment["endpoints"] for host in group["lb_endpoints"]]
    sockets = [host["endpoint"]["address"]["socket_address"] for host in hosts]
    found = [(socket["address"], socket["port_value"]) for socket in sockets]
    return [(*where, host.get("health_status")) for where, host in zip(found, hosts, strict=True)]


def test_names_of_the_mesh_are_asked_for_no_more() -> None:
    assert asked_for(read(files()), SUFFIX) == {"b": Asked(f"b.{SUFFIX}", 8786, f"b.{SUFFIX}")}


def test_replicas_come_with_the_port_of_the_cluster_in_one_order() -> None:
    draining = {"address": "10.0.0.1", "health": "DRAINING"}
    replicas = {f"b.{SUFFIX}": [{"address": "10.0.0.2"}, draining], f"c.{SUFFIX}": [{"address": "10.0.0.9"}]}
    found = all_sent(replicas)
    assert addresses(found["endpoints"]["b"]) == [("10.0.0.1", 8786, "DRAINING"), ("10.0.0.2", 8786, None)]
    assert found["clusters"]["b"]["type"] == "EDS"
    assert found["clusters"]["b"]["eds_cluster_config"] == {"eds_config": ADS}
    assert {"cluster_type", "load_assignment"} & found["clusters"]["b"].keys() == set()


def test_a_service_without_replicas_has_none() -> None:
    found = all_sent({})
    assert found["endpoints"]["b"]["endpoints"] == []
    assert found["endpoints"]["b"]["@type"].endswith("ClusterLoadAssignment")


def test_what_is_not_of_the_mesh_is_as_in_the_files() -> None:
    before = read(files())
    after = all_sent({f"b.{SUFFIX}": [{"address": "10.0.0.2"}]})
    for name in ("far", "other", "local_app"):
        assert after["clusters"][name] == before["clusters"][name]
    assert addresses(after["endpoints"]["fixed"]) == [("192.0.2.7", 80, None)]
    assert after["clusters"]["fixed"]["eds_cluster_config"]["eds_config"] == ADS
    assert after["routes"] == before["routes"]


def test_listeners_wait_for_routes_that_are_sent() -> None:
    found = all_sent({})
    (chain,) = found["listeners"]["ingress_8786"]["filter_chains"]
    assert chain["filters"][-1]["typed_config"]["rds"] == {
        "route_config_name": "ingress_8786",
        "config_source": ADS,
    }
    assert {*found["routes"]} == {"ingress_8786", "egress_9001", "egress_9002", "egress_9003", "egress_9004"}


@pytest.mark.parametrize("text", ["resources: 1", "- a", "a: [", "'x'"])
def test_what_is_no_discovery_response_is_told_by_its_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"^cds\.yaml: is no discovery response"):
        read({**files(), "cds.yaml": text})
