"""Cert-manager: its definitions in the cluster, and its controllers as a process of this machine, for one namespace."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from cluster import api
from cluster.build import FASTER, digest
from cluster.commands import require_go, run
from cluster.places import CACHE, HERE

SOURCES = HERE / "cert-manager"
MODULE = "github.com/cert-manager/cert-manager"
GROUP = "cert-manager.io"
END_SECONDS = 20

Item = dict[str, Any]


def kinds(connection: client.ApiClient) -> list[str]:
    """Those that the cluster has of cert-manager."""
    found = client.ApiextensionsV1Api(connection).list_custom_resource_definition().items
    return [each.spec.names.kind for each in found if each.spec.group == GROUP]


@contextmanager
def definitions(connection: client.ApiClient) -> Iterator[None]:
    """The kinds of group cert-manager.io, which go with the block."""
    if kinds(connection):
        pytest.skip("the cluster has cert-manager")
    # For one test that takes too long.
    if not _program().exists():
        pytest.skip("cert-manager is not built here; PYTHONPATH=tests .venv/bin/python -m cluster cert-manager does it")
    run("go", "mod", "download", cwd=SOURCES)
    folder = (
        Path(run("go", "list", "-m", "-f", "{{.Dir}}", MODULE, cwd=SOURCES, env=FASTER).strip()) / "deploy" / "crds"
    )
    files = sorted(folder.glob("cert-manager.io_*.yaml"))
    names = [f"{path.stem.partition('_')[2]}.{GROUP}" for path in files]
    extensions = client.ApiextensionsV1Api(connection)
    try:
        for path in files:
            api.apply(connection, path)
        api.wait_for("Cert-manager's kinds", lambda: all(_is_served(extensions, name) for name in names), 30)
        yield
    finally:
        for name in names:
            with suppress(client.ApiException):
                extensions.delete_custom_resource_definition(name)
        api.wait_for("The end of cert-manager's kinds", lambda: not kinds(connection), 60)


@contextmanager
def controllers(kubeconfig: Path, namespace: str, log: Path) -> Iterator[None]:
    """Cert-manager at work in a namespace."""
    with log.open("w") as output, subprocess.Popen([_program(), kubeconfig, namespace], stderr=output) as process:
        try:
            yield
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def make_issuer(connection: client.ApiClient, namespace: str, name: str) -> None:
    """An Issuer with an authority of its own."""
    authority = {"isCA": True, "commonName": name, "secretName": name, "issuerRef": {"name": f"{name}-root"}}
    _make(connection, namespace, f"{name}-root", "Issuer", {"selfSigned": {}})
    _make(connection, namespace, name, "Certificate", authority)
    _make(connection, namespace, name, "Issuer", {"ca": {"secretName": name}})


def _make(connection: client.ApiClient, namespace: str, name: str, kind: str, spec: Item) -> None:
    manifest = {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    objects = client.CustomObjectsApi(connection)
    objects.create_namespaced_custom_object(GROUP, "v1", namespace, f"{kind.lower()}s", manifest)


def certificates(connection: client.ApiClient, namespace: str) -> list[str]:
    """Names of the Certificates there are."""
    objects: Any = client.CustomObjectsApi(connection)
    found = objects.list_namespaced_custom_object(GROUP, "v1", namespace, "certificates")["items"]
    return [each["metadata"]["name"] for each in found]


def _is_served(extensions: client.ApiextensionsV1Api, name: str) -> bool:
    status = extensions.read_custom_resource_definition(name).status
    return any(each.type == "Established" and each.status == "True" for each in status.conditions or [])


def _program() -> Path:
    return CACHE / f"cert-manager-{digest(SOURCES)}"


def build() -> None:
    """Build it from the modules that cert-manager/go.mod pins."""
    require_go("1.26")
    flags = ["-gcflags=all=-dwarf=false", "-ldflags=-s -w"]
    run("nice", "-n", "5", "go", "build", *flags, "-o", _program(), ".", cwd=SOURCES, env=FASTER)
