"""How far rollouts are, and what keeps pods from running."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import kube_rollouts as rollouts

Object = dict[str, Any]


def make(kind: str, spec: Object, generation: int = 2, **status: Any) -> Object:
    group = "batch/v1" if kind == "Job" else "apps/v1"
    metadata = {"name": "x", "namespace": "shop", "uid": "x", "generation": generation}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec, "status": status}


NEW = {"observedGeneration": 2}
ROLLED = {**NEW, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "readyReplicas": 3}
DAEMONS = {**NEW, "desiredNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 2}
EXPIRED = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too late"}
REVISIONS = {"currentRevision": "a", "updateRevision": "b"}


@pytest.mark.parametrize(
    ("obj", "done", "text"),
    [
        (make("Deployment", {"replicas": 3}, **ROLLED), True, "3 of 3 replicas updated, 3 available"),
        (make("Deployment", {"replicas": 0}, **NEW), True, "0 of 0 replicas updated, 0 available"),
        (make("Deployment", {}, **NEW), False, "0 of 1 replica updated, 0 available"),
        (
            make("Deployment", {"replicas": 3}, generation=3, **ROLLED),
            False,
            "not looked at by its controller yet",
        ),
        (
            make("Deployment", {"replicas": 3}, **{**ROLLED, "updatedReplicas": 1, "availableReplicas": 2}),
            False,
            "1 of 3 replicas updated, 2 available",
        ),
        (
            make("Deployment", {"replicas": 3}, **{**ROLLED, "replicas": 4}),
            False,
            "3 of 3 replicas updated, 3 available, 1 of before still there",
        ),
        (make("StatefulSet", {"replicas": 3}, **ROLLED, **REVISIONS), True, "3 of 3 replicas updated, 3 available"),
        (
            make("StatefulSet", {"replicas": 3}, **{**ROLLED, **REVISIONS, "updatedReplicas": 2}),
            False,
            "2 of 3 replicas updated, 3 available",
        ),
        (
            make(
                "StatefulSet",
                {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
                **{**ROLLED, **REVISIONS, "updatedReplicas": 1},
            ),
            True,
            "1 of 3 replicas updated, 3 available",
        ),
        (make("DaemonSet", {}, **DAEMONS), True, "2 of 2 pods updated, 2 available"),
        (make("DaemonSet", {}, **{**DAEMONS, "updatedNumberScheduled": 1}), False, "1 of 2 pods updated, 2 available"),
        (make("Job", {"completions": 2}, succeeded=1, active=1), False, "1 of 2 pods succeeded, 1 active"),
        (
            make("Job", {}, succeeded=1, conditions=[{"type": "Complete", "status": "True"}]),
            True,
            "1 of 1 pods succeeded, 0 active",
        ),
    ],
)
def test_states(obj: Object, done: bool, text: str) -> None:
    found = rollouts.rollout(obj)
    assert (found.done, found.text, found.failed) == (done, text, "")


def test_what_a_controller_gave_up() -> None:
    assert rollouts.rollout(make("Deployment", {}, **NEW, conditions=[EXPIRED])).failed == "too late"
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "often enough"}
    assert rollouts.rollout(make("Job", {}, conditions=[failed])).failed == "BackoffLimitExceeded: often enough"


def pod(name: str = "x-1", **status: Any) -> Object:
    return {"metadata": {"name": name, "uid": name}, "status": status}


def app(state: Object, last: Object | None = None, restarts: int = 0, ready: bool = False) -> Object:
    found = {"name": "app", "state": state, "lastState": last or {}, "restartCount": restarts, "ready": ready}
    return {"containerStatuses": [found]}


ENDED = {"terminated": {"exitCode": 1, "reason": "Error"}}
KILLED = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
PULLING = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image\n"nope:1"'}}
BACK_OFF = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}


@pytest.mark.parametrize(
    ("status", "lines"),
    [
        (app({"running": {}}, ready=True), []),
        (app({"waiting": {"reason": "ContainerCreating"}}), []),
        (app(PULLING), ['pod x-1, container app: ImagePullBackOff: Back-off pulling image "nope:1"']),
        (app(BACK_OFF, ENDED, 4), ["pod x-1, container app: crashes: exit code 1, restarted 4 times"]),
        (
            app({"running": {}}, KILLED, 1),
            ["pod x-1, container app: crashes: exit code 137 (OOMKilled), restarted 1 time"],
        ),
        (app({"running": {}}), ["pod x-1, container app: runs, but is not ready"]),
        ({"conditions": [UNSCHEDULABLE]}, ["pod x-1: not on a node: Unschedulable: 0/2 nodes"]),
    ],
)
def test_troubles(status: Object, lines: list[str]) -> None:
    assert [trouble.line for trouble in rollouts.troubles(pod(**status))] == lines


def test_a_pod_that_goes_away_is_no_trouble() -> None:
    leaving = pod(**app(PULLING))
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not list(rollouts.troubles(leaving))


def test_an_image_that_does_not_come_is_given_up_after_a_while() -> None:
    found = list(rollouts.troubles(pod(**app(PULLING))))
    memory = rollouts.remember({}, found, 100)
    assert not rollouts.hopeless(memory, found, 100)
    later = rollouts.remember(memory, found, 100 + rollouts.PATIENCE)
    assert rollouts.hopeless(later, found, 100 + rollouts.PATIENCE) == found
    # It came in between: the time counts anew.
    again = rollouts.remember(rollouts.remember(memory, [], 110), found, 120)
    assert not rollouts.hopeless(again, found, 100 + rollouts.PATIENCE)


def test_a_crash_is_given_up_when_one_more_was_seen() -> None:
    crashes = [list(rollouts.troubles(pod(**app(BACK_OFF, ENDED, restarts)))) for restarts in range(6)]
    fresh = rollouts.remember({}, [], 0)
    assert [bool(rollouts.hopeless(fresh, found, 0)) for found in crashes] == [False] * 3 + [True] * 3
    # It had crashed before this wait, whose cause may be remedied.
    memory = rollouts.remember(rollouts.remember({}, crashes[4], 0), crashes[4], 1)
    assert [bool(rollouts.hopeless(memory, crashes[count], 1)) for count in (4, 5)] == [False, True]


def test_only_pods_of_the_newest_version_count() -> None:
    def owned(name: str, owner: str, revision: str) -> Object:
        owners = [{"uid": owner, "controller": True}]
        annotations = {"deployment.kubernetes.io/revision": revision}
        return {"metadata": {"name": name, "uid": name, "ownerReferences": owners, "annotations": annotations}}

    workload = make("Deployment", {})
    workload["metadata"]["annotations"] = {"deployment.kubernetes.io/revision": "2"}
    sets = [owned("old", "x", "1"), owned("new", "x", "2"), owned("other", "y", "2")]
    pods = [owned(f"{name}-1", name, "") for name in ("old", "new", "other")]
    assert [pod["metadata"]["name"] for pod in rollouts.current_pods(workload, sets, pods)] == ["new-1"]


def test_pods_refused_at_the_door() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    found = rollouts.refused_pods(make("Deployment", {}, conditions=[condition]))
    assert [trouble.line for trouble in found] == ["pods are refused: FailedCreate: exceeded quota"]
    assert not rollouts.refused_pods(make("Deployment", {}))
