"""The cluster's start and end."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import dns.resolver
from kubernetes import client

from cluster import api, cgroups, components, images, network, supervision
from cluster.build import build
from cluster.commands import PACKAGES, install_packages, require_root
from cluster.places import DNS, DOMAIN, HERE, IMAGES, KUBECONFIG, NODES, PROGRAMS, STATE


def up() -> Path:
    """Start what does not run; return the kubeconfig. A KUBECONFIG of the environment takes the cluster's place."""
    if outside := given():
        with api.connected(outside) as connection:
            api.wait_for(f"The cluster of KUBECONFIG={outside} answers", lambda: api.answers(connection), 10)
        return outside
    require_root()
    install_packages(PACKAGES)
    programs = build()
    archives = images.base_images().values()
    started = time.monotonic()
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    _link(PROGRAMS, programs)
    _link(IMAGES, images.FOLDER)
    logs = f"Logs: {supervision.LOGS}"
    network.make()
    cgroups.make()
    components.write_secrets()
    components.write_configurations()
    commands = components.commands(programs)
    supervision.launch(commands, programs)
    supervision.start("etcd", "apiserver", *(name for name in commands if name.startswith("containerd")))
    api.wait_for("The API server's certificate", components.AUTHORITY.exists, 120, help_at=logs)
    components.write_kubeconfigs()
    with api.connected(KUBECONFIG) as connection:
        api.wait_for("The API server answers", lambda: api.answers(connection), 300, help_at=logs)
        # Roles and priorities come a moment after the first answer.
        api.wait_for("The API server takes objects", lambda: _registered(connection), 300, help_at=logs)
        for archive in images.system_images():
            images.import_archive(archive)
        supervision.start(*commands)
        for archive in archives:
            images.import_archive(archive)
        api.wait_for("Nodes and DNS are ready", lambda: not api.waiting(connection), 300, help_at=logs)
    api.wait_for("A pod answers", _resolves, 120, help_at=logs)
    print(f"The cluster is ready after {time.monotonic() - started:.0f} s", flush=True)
    return KUBECONFIG


def _link(path: Path, target: Path) -> None:
    """For those who know the cluster by its kubeconfig only."""
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def down() -> None:
    """End everything, and remove what it wrote, except what was built."""
    require_root()
    cgroups.kill()
    network.remove()
    shutil.rmtree(STATE, ignore_errors=True)


def given() -> Path | None:
    """The kubeconfig of a cluster that somebody else started."""
    path = os.environ.get("KUBECONFIG")
    return Path(path) if path and Path(path) != KUBECONFIG else None


def _registered(connection: client.ApiClient) -> bool:
    for node in NODES:
        api.register(connection, node.name, node.pods)
    api.apply(connection, HERE / "coredns.manifests")
    return True


def _resolves() -> bool:
    """Whether the cluster's DNS, a pod behind a service, answers this machine."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [DNS]
    try:
        return bool(resolver.resolve(f"kubernetes.default.svc.{DOMAIN}", lifetime=2))
    except dns.exception.DNSException as problem:
        raise OSError(problem) from problem
