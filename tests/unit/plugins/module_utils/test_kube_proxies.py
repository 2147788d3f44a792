"""What is read out of answers of pods, and where fronts are reached."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import kube_fronts, kube_proxies, pods

# From Envoy 1.40.
LOG = """\
[2026-11-21 22:02:42.968][8][warning][config] [source/x.cc:81] Filesystem config update rejected: Invalid duration: \
Expected positive duration: goo.gle/debugstr
seconds: -1

[2026-11-21 22:02:42.988][8][warning][config] [source/x.cc:81] Filesystem config update rejected: Invalid duration: \
Expected positive duration: goo.gle/debugonly
seconds: -1

[2026-11-21 22:02:43.026][8][info][main] [source/x.cc:1] all is well
[2026-11-21 22:02:43.026][8][warning][config] [source/x.cc:81] Filesystem config update rejected: goo.gle/debugstr
name: "front_18000"
virtual_hosts {
  name: "default"
}
: Proto constraint validation failed (Cluster: value length must be at least 1 characters)
"""


def test_reasons_of_refusals_are_told_once() -> None:
    assert kube_proxies.rejections(LOG) == [
        "Invalid duration: Expected positive duration: seconds: -1",
        (
            'name: "front_18000" virtual_hosts { name: "default" } : Proto constraint validation failed '
            "(Cluster: value length must be at least 1 characters)"
        ),
    ]


def test_of_a_long_reason_the_end_counts() -> None:
    (reason,) = kube_proxies.rejections(f"x rejected: {'a' * 9999} because of b")
    assert reason.startswith("… a")
    assert reason.endswith("because of b")
    assert len(reason) < 500


def pod(node: str = "10.0.0.1", *, ready: bool = True, **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    status = {"phase": "Running", "hostIP": node, "conditions": conditions}
    return {"metadata": {"name": "p", **metadata}, "spec": {"containers": [{"name": "envoy"}]}, "status": status}


@pytest.mark.parametrize(
    ("ingress", "node_port", "places"),
    [
        ([{"ip": "192.0.2.1"}], 30080, ["192.0.2.1:80", "10.0.0.1:30080", "10.0.0.2:30080"]),
        ([{"hostname": "lb.example.com"}], None, ["lb.example.com:80"]),
        ([], 30080, ["10.0.0.1:30080", "10.0.0.2:30080"]),
        ([{"ip": "2001:db8::1"}], None, ["[2001:db8::1]:80"]),
        ([], None, []),
    ],
)
def test_places_of_a_front(ingress: list[dict[str, str]], node_port: int | None, places: list[str]) -> None:
    ports = [{"port": 443, "nodePort": 30443}, {"port": 80, **({"nodePort": node_port} if node_port else {})}]
    service = {"spec": {"ports": ports}, "status": {"loadBalancer": {"ingress": ingress}}}
    running = [pod(), pod(), pod("10.0.0.2"), pod("10.0.0.3", ready=False)]
    assert [str(place) for place in kube_fronts.places(service, running, 80)] == places


def test_host_ports_of_a_front() -> None:
    service = {"spec": {"ports": [{"port": 80}, {"port": 443, "nodePort": 30443}]}}
    running = [pod(), pod("10.0.0.2"), pod("10.0.0.3", ready=False)]
    for each in running:
        each["spec"]["containers"][0]["ports"] = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 443}]
    assert [str(place) for place in kube_fronts.places(service, running, 80)] == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert {place.how for place in kube_fronts.places(service, running, 443)} == {kube_fronts.NODE_PORT}


def test_pods_that_go_are_not_ready() -> None:
    assert pods.is_ready(pod())
    assert not pods.is_ready(pod(deletionTimestamp="2026-11-21T22:00:00Z"))


def test_a_sidecar_runs_before_its_pod_does() -> None:
    running = {"name": "envoy", "state": {"running": {}}}
    starting = {"metadata": {}, "spec": {}, "status": {"phase": "Pending", "initContainerStatuses": [running]}}
    assert pods.runs(starting, "envoy")
    assert not pods.runs(starting, "application")
    assert not pods.runs({**starting, "metadata": {"deletionTimestamp": "now"}}, "envoy")
