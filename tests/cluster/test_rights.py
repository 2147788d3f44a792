"""What somebody needs who runs a mesh: the rights of the namespace's admin; and what is said where one is missing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.machine import wait_until

from cluster import control_plane, images
from cluster.commands import run
from cluster.handle import Cluster
from cluster.lifecycle import given
from cluster.mesh import Mesh, answers
from cluster.relay import front, service

COMMAND = "kubectl create clusterrolebinding "
ELSEWISE = {"ConfigMap/kube-root-ca.crt", "ServiceAccount/admin", "ServiceAccount/default"}
"""What is in the namespace without the mesh."""


@pytest.fixture
def mesh(cluster: Cluster, tmp_path: Path) -> Iterator[Mesh]:
    if outside := given():
        pytest.skip(f"asks pods from this machine, which KUBECONFIG={outside} does not let")
    with cluster.new_namespace() as namespace:
        mesh = Mesh(cluster, namespace, tmp_path)
        mesh.services = [service("service-a", "service-b"), service("service-b")]
        mesh.fronts = [front()]
        mesh.settings = {
            "mesh_name": "own",
            "mesh_envoy_image": images.envoy(images.OLDEST),
            "mesh_kubeconfig": str(mesh.kubeconfig_of("admin", "ClusterRole", "admin")),
        }
        yield mesh


def test_a_namespace_admin_runs_changes_and_removes_a_mesh(mesh: Mesh) -> None:
    mesh.front()["listeners"].append({"port": 8443, "tls": {"secret": "envoy-certs"}})
    mesh.must_run()
    assert answers(mesh, "/") == {"service-a service-b "}
    kinds = {name.partition("/")[0] for name in mesh.objects()}
    assert {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "Secret"} <= kinds
    mesh.services = [service("service-a")]
    mesh.must_run()
    assert answers(mesh, "/") == {"service-a "}
    assert not [name for name in mesh.objects() if "service-b" in name and not name.startswith("Pod/")]
    for playbook in ("status", "verify"):
        assert mesh.must_run(playbook).changed == []
    mesh.must_run("reset")
    wait_until(lambda: set(mesh.objects()) == ELSEWISE, "nothing is left", 90)


@pytest.mark.thorough
def test_a_control_plane_takes_one_right_more(mesh: Mesh, tmp_path: Path) -> None:
    """Without it nothing runs; an error has the command that gives it, after which the namespace's admin is enough."""
    mesh.settings |= {
        "mesh_config_delivery": "ads",
        "mesh_control_plane": {"image": control_plane.image(tmp_path)},
    }
    refused = mesh.run()
    may_not = f"system:serviceaccount:{mesh.namespace}:admin may not get clusterrolebindings.rbac.authorization.k8s.io"
    assert f"{may_not} in the whole cluster" in refused.failure
    assert COMMAND in refused.output
    mesh.settings["mesh_control_plane"]["cluster_role_binding"] = False
    refused = mesh.run(control_plane_timeout=60)
    assert "may not ask the API server whose a token is" in refused.failure
    command = COMMAND + refused.output.partition(COMMAND)[2].partition(" and set ")[0]
    program, *arguments = shlex.split(command)
    assert program == "kubectl"
    run(mesh.cluster.kubectl, "--kubeconfig", str(mesh.cluster.kubeconfig), *arguments)
    try:
        mesh.must_run()
        assert answers(mesh, "/") == {"service-a service-b "}
        assert mesh.must_run("status").changed == []
        mesh.must_run("reset")
    finally:
        kubectl = [mesh.cluster.kubectl, "--kubeconfig", str(mesh.cluster.kubeconfig)]
        run(*kubectl, "delete", "clusterrolebinding", arguments[2])
    wait_until(lambda: set(mesh.objects()) == ELSEWISE, "nothing is left", 90)
