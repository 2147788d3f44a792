"""What users are told of a refusal."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.kube import ApiError
from ansible_collections.sidecar.mesh.plugins.module_utils.kube_errors import lines, problem

Object = dict[str, Any]


def make(name: str = "x", kind: str = "ConfigMap", **more: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, **more}


def conflict(*fields: tuple[str, str]) -> ApiError:
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{manager}" using apps/v1', "field": field}
        for manager, field in fields
    ]
    return ApiError(409, "Conflict", f"Apply failed with {len(causes)} conflicts", {"causes": causes})


RIGHT = (
    'deployments.apps "web" is forbidden: User "system:serviceaccount:shop:robot" cannot patch resource "deployments" '
    'in API group "apps" in the namespace "shop"'
)
CLUSTER_RIGHT = (
    'namespaces "shop" is forbidden: User "ada" cannot get resource "namespaces" in API group "" at the cluster scope'
)


REMEDIES = {
    "kubectl has set .data.a, .data.b; hpa has set .spec.replicas, to another value; leave that out of definition, or "
    "take it over by force_conflicts: true": conflict(
        ("kubectl", ".data.a"), ("kubectl", ".data.b"), ("hpa", ".spec.replicas")
    ),
    "system:serviceaccount:shop:robot may not patch deployments.apps in namespace shop: give it a Role and a "
    "RoleBinding with verb patch": ApiError(403, "Forbidden", RIGHT),
    "ada may not get namespaces in the whole cluster: give it a ClusterRole and a ClusterRoleBinding with verb "
    "get": ApiError(403, "Forbidden", CLUSTER_RIGHT),
    "exceeded quota: few, requested: pods=1": ApiError(403, "Forbidden", "exceeded quota: few,\n requested: pods=1"),
    "namespace shop does not exist; create it, or put it into definition as well": ApiError(
        404, "NotFound", 'namespaces "shop" not found', {"kind": "namespaces", "name": "shop"}
    ),
}


@pytest.mark.parametrize("text", REMEDIES)
def test_remedies(text: str) -> None:
    assert problem(make(), REMEDIES[text]) == text


def test_the_same_problem_of_many_is_one_line() -> None:
    error = ApiError(403, "Forbidden", "no")
    found = [(make(f"m{number}"), error) for number in range(5)] + [(make("other"), ApiError(400, "BadRequest", "bad"))]
    assert lines(found) == [
        "ConfigMap shop/m0, ConfigMap shop/m1, ConfigMap shop/m2 and 2 more: no",
        "ConfigMap shop/other: bad",
    ]


def test_a_secret_is_not_told() -> None:
    details = {"causes": [{"field": "data[k]", "message": "hunter2"}]}
    error = ApiError(422, "Invalid", 'Secret "x" is invalid: data[k]: Invalid value: "hunter2"', details)
    told = problem(make(kind="Secret", stringData={"k": "hunter2"}), error)
    assert told == ("refused as Invalid (fields: data[k]); the reason has a value of the Secret and is not shown")
    assert "hunter2" in problem(make(kind="Secret", stringData={"k": "else"}), error)
