"""Makes the checkout importable as ansible_collections.sidecar.mesh, and its filters resolvable by name, in every test.

Ansible's own loader does it: it finds this collection by the link in .collections, and its dependencies among the
installed packages. An entry in sys.path could not: there, ansible_collections is one folder and hides every other.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COLLECTIONS = ROOT / ".collections"


def _load_collections() -> None:
    os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(COLLECTIONS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "ansible_collections"]:
        del sys.modules[name]

    from ansible.plugins.loader import init_plugin_loader
    from ansible.utils.collection_loader import AnsibleCollectionConfig

    if AnsibleCollectionConfig.collection_finder is None:
        init_plugin_loader([str(COLLECTIONS)])
    found = Path(next(iter(importlib.import_module("ansible_collections.sidecar.mesh").__path__))).resolve()
    if found != ROOT:
        raise RuntimeError(f"ansible_collections.sidecar.mesh is {found}, not this checkout {ROOT}")


_load_collections()


@pytest.fixture(scope="module")
def envoy() -> Iterator[Any]:
    """The real Envoy: that of the environment, else the one on PATH."""
    from ansible_collections.sidecar.mesh.plugins.module_utils.validate import Envoy

    program = Path(sys.executable).parent / "envoy"
    with Envoy.found(str(program) if program.exists() else "envoy") as found:
        yield found


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, to stand for all."""
    from golden.certificates import write_certificate

    folder = tmp_path_factory.mktemp("certificates")
    write_certificate(folder)
    return folder


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A real Kubernetes, as cluster.handle.Cluster: that of KUBECONFIG, else that of `make cluster`, which goes on."""
    from cluster import api, lifecycle
    from cluster.commands import Missing
    from cluster.handle import Cluster

    try:
        kubeconfig = lifecycle.up()
    except Missing as reason:
        pytest.skip(str(reason))
    # What tests start finds it, too.
    os.environ["KUBECONFIG"] = str(kubeconfig)
    with api.connected(kubeconfig) as connection:
        yield Cluster(kubeconfig, connection)


@pytest.fixture
def namespace(cluster: Any) -> Iterator[str]:
    """A new namespace that admits restricted pods only; it goes with all that is in it."""
    with cluster.new_namespace() as name:
        yield name
