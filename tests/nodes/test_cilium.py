"""What role cilium refuses: no Helm, one that is not what was released, one too old, a chart that does not render."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from behaviour.local_mesh import Play
from behaviour.machine import BIN
from cluster.plays import run_role

from nodes import stand_in
from nodes.site import Site
from nodes.stand_in import Releases

WITHOUT_HELM = f"{BIN}:/usr/bin:/bin"
ARCHIVE = "/helm-v3.22.0-linux-amd64.tar.gz"


@pytest.fixture
def helms() -> Iterator[Releases]:
    """Where Helm is downloaded from."""
    with stand_in.releases("127.0.0.1") as offered:
        yield offered


def run(folder: Path, **variables: object) -> Play:
    """The role by a user who has no Helm on PATH, and an empty home."""
    if shutil.which("helm", path=WITHOUT_HELM):
        pytest.skip("Helm is in a system folder of this machine, where the role finds it")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {"PATH": WITHOUT_HELM, "HOME": str(home), "XDG_DATA_HOME": "", "XDG_CACHE_HOME": ""}
    return run_role(folder, "cilium", {"cilium_timeout": 5, **variables}, **environment)


def told(play: Play) -> str:
    """What the user is told in the end; what led to it comes before."""
    assert play.code != 0
    return str([result["msg"] for _name, result in play.tasks if result.get("failed")][-1])


def files(folder: Path) -> list[str]:
    """What the user has now, beside Ansible's own."""
    return [str(path) for path in (folder / "home").rglob("*") if path.is_file() and ".ansible" not in path.parts]


def test_helm_is_installed_only_as_it_was_released(tmp_path: Path, helms: Releases) -> None:
    absent = run(tmp_path, cilium_helm_mirror=helms.url)
    assert f"cilium_helm_mirror: Helm 3.22.0 was not installed from {helms.url}{ARCHIVE}" in told(absent)
    assert "name a Helm of this machine in cilium_helm_binary" in told(absent)

    helms.files[ARCHIVE] = b"no archive of Helm's"
    helms.files[f"{ARCHIVE}.sha256sum"] = f"{'0' * 64}  {ARCHIVE[1:]}\n".encode()
    other = run(tmp_path, cilium_helm_mirror=helms.url)
    assert "checksum" in told(other)
    assert "cilium_helm_mirror: " in told(other)
    assert files(tmp_path) == []


def test_a_helm_that_is_named_has_to_run_and_to_be_new_enough(tmp_path: Path) -> None:
    missing = run(tmp_path, cilium_helm_binary="/nonexistent/helm")
    assert "cilium_helm_binary: /nonexistent/helm is not there or does not run" in told(missing)
    assert "or leave it empty to have Helm 3.22.0 installed" in told(missing)

    old = tmp_path / "old-helm"
    old.write_text("#!/bin/sh\necho v3.2.4\n")
    old.chmod(0o755)
    refused = run(tmp_path, cilium_helm_binary=str(old))
    assert f"cilium_helm_binary: {old} is Helm 3.2.4" in told(refused)
    assert "at least 3.13.0" in told(refused)
    assert files(tmp_path) == []


def test_a_chart_that_does_not_render_changes_nothing(pair: Site) -> None:
    chart, helm = os.environ.get("CILIUM_CHART"), os.environ.get("HELM") or shutil.which("helm")
    if not chart or not helm:
        pytest.skip("Cilium's chart (CILIUM_CHART) and Helm (HELM, or on PATH) are not given")
    pair.variables = {"k3s_binary": str(stand_in.build()), "k3s_network": "flannel"}
    pair.must_run("k3s")
    pair.variables |= {
        "k3s_network": "cilium",
        "ansible_python_interpreter": str(BIN / "python"),
        "mesh_kubeconfig": str(pair.kubeconfig),
        "mesh_context": "k3s",
        "cilium_chart": chart,
        "cilium_helm_binary": helm,
        "cilium_api_host": "127.0.0.1",
        "cilium_api_port": 6444,
        "cilium_values": {"ipam": {"mode": "no-such-mode"}, "kubeProxyReplacement": "partial"},
    }
    refused = pair.run("cilium")
    assert refused.code != 0
    assert "nothing was changed" in refused.failure or "Cilium was not touched" in refused.failure
    assert "kubeProxyReplacement" in refused.failure
    assert pair.kubectl("get", "secrets,configmaps,daemonsets", "-n", "kube-system", "-o", "name").count("cilium") == 0
