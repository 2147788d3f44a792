"""How a mesh is, as a table."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import status
from unit import self_signed

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def certificate(days: float) -> str:
    return self_signed.pair(NOW, days)[0]


@pytest.mark.parametrize(("days", "left"), [(30, 30), (0.5, 0), (-2, -2), (9000, 9000)])
def test_days_that_a_certificate_lasts(days: float, left: int) -> None:
    # Dates from 2050 are written in another way.
    assert status.certificate("a", certificate(days), NOW) == {"name": "a", "days": left}


def test_of_several_certificates_the_first_counts() -> None:
    assert status.certificate("a", certificate(5) + certificate(50), NOW)["days"] == 5


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "x"])
def test_what_is_no_certificate_has_no_days(text: str) -> None:
    assert status.certificate("a", text, NOW)["days"] is None


def test_certificates_of_secrets() -> None:
    data = {"tls.crt": base64.b64encode(certificate(7).encode()).decode()}
    assert status.secret({"metadata": {"name": "certs"}, "data": data}, NOW) == {"name": "certs", "days": 7}
    assert status.secret({"metadata": {"name": "certs"}}, NOW)["days"] is None


FILES = {"cds.yaml": "version_info: aaa\n", "lds.yaml": "version_info: bbb\n", "bootstrap.yaml": "x: y\n"}
STATS = {
    "cluster_manager.cds.version_text": "aaa",
    "listener_manager.lds.version_text": "bbb",
    "cluster_manager.cds.update_rejected": "0",
    "server.days_until_first_cert_expiring": "4294967295",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("current", 0, None)),
        ({"server.days_until_first_cert_expiring": "19"}, ("current", 0, 19)),
        ({"cluster_manager.cds.update_rejected": "2"}, ("current", 2, None)),
        ({"listener_manager.lds.version_text": "ccc"}, ("behind: lds.yaml", 0, None)),
        (
            {"cluster_manager.cds.version_text": "", "cluster_manager.cds.update_rejected": "1"},
            ("refused: cds.yaml", 1, None),
        ),
    ],
)
def test_what_an_envoy_makes_of_its_files(changes: dict[str, str], expected: tuple[str, int, int | None]) -> None:
    found = status.configuration(FILES, {**STATS, **changes})
    assert (found["config"], found["refused"], found["certificate_days"]) == expected


def pod(name: str, container: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "False" if container else "True"}
    statuses = [{"name": "envoy", "restartCount": 1, "state": {"running": {}}}]
    statuses += [{"name": "application", "restartCount": 2, "state": container}] if container else []
    own = {"conditions": [ready], "containerStatuses": statuses, "phase": "Running", **more}
    return {"metadata": {"name": name}, "spec": {"nodeName": "node-1"}, "status": own}


TABLE = """\
Mesh 'shop' in namespace n

SERVICE  READY  REPLICA  PLACE   STATE                          RESTARTS  CONFIG            REFUSED  CERTIFICATE
cart     1/3    cart-1   node-1  ready                          1         behind: cds.yaml  0        9 days
                cart-2   node-1  application: CrashLoopBackOff  3         current           0        -
                cart-3   -       Unschedulable: no node         1         -                 -        -

FRONT PROXY  READY  REPLICA  PLACE  STATE  RESTARTS  CONFIG  REFUSED  CERTIFICATE
edge         0/3    -        -      -      -         -       -        -

CERTIFICATE  DAYS LEFT
certs        9

jane may not"""


def test_the_table() -> None:
    crashing = {"waiting": {"reason": "CrashLoopBackOff"}}
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node"}
    replicas = [
        {**status.pod(pod("cart-2", crashing)), "config": "current", "refused": 0},
        {**status.pod(pod("cart-1")), "config": "behind: cds.yaml", "refused": 0, "certificate_days": 9},
        status.pod({**pod("cart-3", {}, conditions=[unscheduled], phase="Pending"), "spec": {}}),
    ]

    def deployment(name: str, component: str, ready: int) -> dict[str, Any]:
        labels = {"app.kubernetes.io/component": component}
        counted = {"readyReplicas": ready} if ready else {}
        return {"metadata": {"name": name, "labels": labels}, "spec": {"replicas": 3}, "status": counted}

    found = [deployment("edge", "front-proxy", 0), deployment("cart", "sidecar", 1)]
    workloads = status.deployments(found, {"cart": replicas})
    lines = status.lines("shop", "in namespace n", workloads, [{"name": "certs", "days": 9}], ["jane may not"])
    assert "\n".join(lines) == TABLE


def test_nothing_is_there() -> None:
    assert status.lines("shop", "in namespace n", [], [], []) == ["Mesh 'shop' in namespace n", "", "Nothing is there."]
