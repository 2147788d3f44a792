"""What a control plane says of the proxies that are connected to it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import control_plane
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import content_hash
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests_control_plane import control_plane_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from ansible_collections.sidecar.mesh.plugins.module_utils.selection import SelectionError

FILES = {"cds.yaml": "a", "lds.yaml": "b"}
NACK = {"message": "no such thing", "resources": ["b"]}


def entry(*, synced: bool = True, content: str = content_hash(FILES), refused: list[str] | None = None) -> Any:
    types = {"clusters": {"refused": refused or [], "nack": NACK if refused else None}, "routes": {"refused": []}}
    return {"node": "a-1", "content": content, "synced": synced, "types": types}


@pytest.mark.parametrize(
    ("found", "late", "refused"),
    [
        (entry(), [], {}),
        (entry(content="older"), ["what the control plane sends"], {}),
        (entry(synced=False), ["what the control plane sent"], {}),
        (entry(synced=False, refused=["b"]), ["clusters b"], {"clusters b": "no such thing"}),
    ],
)
def test_what_a_proxy_does_not_have_yet(found: Any, late: list[str], refused: dict[str, str]) -> None:
    assert control_plane.late(found, FILES) == late
    assert control_plane.refused(found) == refused


def model(**settings: Any) -> Any:
    given = {"engine": "kubernetes", "config_delivery": "ads", "name": "shop", "namespace": "store", **settings}
    return build_model([], [], given)


def objects(**settings: Any) -> dict[str, Any]:
    made = control_plane_manifests(model(control_plane={"image": "xds:1", **settings}), "PEM")
    return {item["kind"]: item for item in made}


def test_its_objects_have_one_name_and_the_labels_of_the_mesh() -> None:
    made = objects()
    names = {kind: item["metadata"]["name"] for kind, item in made.items()}
    assert names.pop("ClusterRoleBinding") == "store-shop-control-plane"
    assert names.pop("ConfigMap") == "shop-control-plane-ca"
    assert set(names.values()) == {"shop-control-plane"}
    assert {item["metadata"]["labels"]["app.kubernetes.io/part-of"] for item in made.values()} == {"shop"}
    assert made["ConfigMap"]["data"] == {"ca.crt": "PEM"}


def test_who_may_bind_it_may_be_somebody_else() -> None:
    assert objects().keys() - objects(cluster_role_binding=False).keys() == {"ClusterRoleBinding"}


def test_it_may_read_and_not_write() -> None:
    rules = objects()["Role"]["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert not any("secrets" in rule["resources"] for rule in rules)


def test_one_replica_has_no_budget_that_would_hold_its_node() -> None:
    assert "PodDisruptionBudget" in objects(replicas=2)
    assert "PodDisruptionBudget" not in objects(replicas=1)


def test_a_mesh_without_proxies_has_a_policy_that_admits_none() -> None:
    (policy,) = mesh_policies(model(), "kubernetes").values()
    assert [rule["ports"][0]["port"] for rule in policy["spec"]["ingress"]] == [18001]


def test_its_ports_are_those_of_the_inventory() -> None:
    made = objects(port=18010, status_port=18011)
    assert [port["port"] for port in made["Service"]["spec"]["ports"]] == [18010, 18011]
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][:4] == ["--listen", "0.0.0.0:18010", "--status", "0.0.0.0:18011"]


def test_an_image_is_given_or_built() -> None:
    with pytest.raises(ModelError, match=r"mesh_control_plane\.image: is missing; give one, or have role images"):
        control_plane_manifests(model(), "")
    made = control_plane_manifests(model(images={"control-plane": "built:1"}), "")
    assert made[-1]["spec"]["template"]["spec"]["containers"][0]["image"] == "built:1"


def test_other_meshes_have_none() -> None:
    with pytest.raises(SelectionError, match="only ads on engine kubernetes"):
        control_plane_manifests(build_model([], [], {"engine": "kubernetes"}), "")
    with pytest.raises(SelectionError, match="only ads on engine kubernetes"):
        control_plane_manifests(build_model([], [], {"engine": "local", "config_delivery": "ads"}), "")
