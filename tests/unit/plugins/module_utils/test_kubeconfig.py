"""A context in a kubeconfig, among those of others."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import kubeconfig
from ansible_collections.sidecar.mesh.plugins.module_utils.kubeconfig import KubeconfigError

URL = "https://192.0.2.11:6443"
K3S: dict[str, Any] = {
    "clusters": [
        {"name": "default", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": "Q0E="}}
    ],
    "users": [{"name": "default", "user": {"client-certificate-data": "Q1JU", "client-key-data": "S0VZ"}}],
    "contexts": [{"name": "default", "context": {"cluster": "default", "user": "default"}}],
    "current-context": "default",
}
WORK: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [
        {"name": "work", "cluster": {"server": "https://work:6443", "certificate-authority-data": "T1RIRVI="}}
    ],
    "users": [{"name": "me", "user": {"token": "s3cr3t"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me", "namespace": "team"}}],
    "current-context": "work",
    "preferences": {"colors": True},
    "extensions": [{"name": "x", "extension": {}}],
}


def test_the_first_cluster_is_the_current_one() -> None:
    made = kubeconfig.merged(None, "homelab", URL, K3S)
    assert made["current-context"] == "homelab"
    assert made["clusters"] == [{"name": "homelab", "cluster": {"server": URL, "certificate-authority-data": "Q0E="}}]
    assert made["users"][0]["user"]["client-key-data"] == "S0VZ"
    assert made["contexts"] == [{"name": "homelab", "context": {"cluster": "homelab", "user": "homelab"}}]


def test_nothing_of_others_changes() -> None:
    before = copy.deepcopy(WORK)
    made = kubeconfig.merged(WORK, "homelab", URL, K3S)
    assert before == WORK
    for section in ("clusters", "users", "contexts"):
        assert made[section][0] == WORK[section][0]
        assert [entry["name"] for entry in made[section][1:]] == ["homelab"]
    assert {key: made[key] for key in ("current-context", "preferences", "extensions")} == {
        key: WORK[key] for key in ("current-context", "preferences", "extensions")
    }


def test_again_changes_nothing() -> None:
    once = kubeconfig.merged(WORK, "homelab", URL, K3S)
    assert kubeconfig.merged(once, "homelab", URL, K3S) == once


def test_renewed_certificates_replace_those_before_and_a_namespace_stays() -> None:
    once = kubeconfig.merged(WORK, "homelab", URL, K3S)
    once["contexts"][1]["context"]["namespace"] = "shop"
    renewed = copy.deepcopy(K3S)
    renewed["users"][0]["user"]["client-key-data"] = "TkVX"
    made = kubeconfig.merged(once, "homelab", URL, renewed)
    assert made["users"][1]["user"]["client-key-data"] == "TkVX"
    assert made["contexts"][1]["context"] == {"namespace": "shop", "cluster": "homelab", "user": "homelab"}


def test_a_cluster_that_was_made_anew_or_moved_is_the_same() -> None:
    once = kubeconfig.merged(WORK, "homelab", URL, K3S)
    anew = copy.deepcopy(K3S)
    anew["clusters"][0]["cluster"]["certificate-authority-data"] = "TkVX"
    assert (
        kubeconfig.merged(once, "homelab", URL, anew)["clusters"][1]["cluster"]["certificate-authority-data"] == "TkVX"
    )
    moved = kubeconfig.merged(once, "homelab", "https://192.0.2.99:6443", K3S)
    assert moved["clusters"][1]["cluster"]["server"] == "https://192.0.2.99:6443"


def test_the_name_of_another_cluster_is_not_taken() -> None:
    with pytest.raises(
        KubeconfigError, match=r"context 'work' is of another cluster, at https://work:6443; choose another"
    ):
        kubeconfig.merged(WORK, "work", URL, K3S)


def test_removing_leaves_what_was_there_before() -> None:
    made = kubeconfig.removed(kubeconfig.merged(WORK, "homelab", URL, K3S), "homelab", URL)
    assert made == WORK
    alone = kubeconfig.removed(kubeconfig.merged(None, "homelab", URL, K3S), "homelab", URL)
    assert alone is not None
    assert alone["current-context"] == ""
    assert kubeconfig.is_empty(alone)
    assert not kubeconfig.is_empty(WORK)


@pytest.mark.parametrize("present", [None, WORK])
def test_removing_what_is_not_there(present: Any) -> None:
    assert kubeconfig.removed(present, "homelab", URL) == present


def test_removing_does_not_touch_another_cluster_of_that_name() -> None:
    assert kubeconfig.removed(WORK, "work", URL) == WORK


def test_a_diff_shows_no_secret() -> None:
    text = kubeconfig.described(kubeconfig.merged(WORK, "homelab", URL, K3S))
    assert text == (
        "current-context: work\n"
        "context work: cluster work at https://work:6443, user me\n"
        "context homelab: cluster homelab at https://192.0.2.11:6443, user homelab\n"
    )


@pytest.mark.parametrize("data", ["text", ["list"], {"clusters": "none"}])
def test_what_is_no_kubeconfig(data: Any) -> None:
    with pytest.raises(KubeconfigError, match="is no kubeconfig; move it away"):
        kubeconfig.checked(data, "/home/me/.kube/config")
