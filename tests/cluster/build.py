"""The cluster's programs, built once from the modules that programs/go.mod pins."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from pathlib import Path

from cluster.commands import require_go, run
from cluster.places import CACHE, HERE

SOURCES = HERE / "programs"
KUBERNETES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet")
FASTER = {
    "CGO_ENABLED": "0",
    # The compiler collects its garbage less often: memory is there, and time is not.
    "GOGC": "800",
    "GOFLAGS": "-buildvcs=false -mod=readonly",
}


def programs() -> Path:
    """The folder of the built programs."""
    return CACHE / f"programs-{digest(SOURCES)}"


def build() -> Path:
    """Build what is missing; return the folder."""
    folder = programs()
    if folder.exists():
        return folder
    require_go(_pinned(r"^go (\S+)$"))
    print("Building Kubernetes, etcd, containerd and CoreDNS (about ten minutes on two cores, once)", flush=True)
    started = time.monotonic()
    unfinished = folder.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    # Without inlining, and what only debuggers read, it compiles in three quarters of the time.
    flags = ["-gcflags=all=-dwarf=false -l", f"-ldflags=-s -w {_versions()}"]
    run("go", "build", *flags, "-o", f"{unfinished}/", "./...", "tool", cwd=SOURCES, env=FASTER)
    for name in KUBERNETES:
        (unfinished / name).symlink_to("kubernetes")
    unfinished.rename(folder)
    print(f"Built in {time.monotonic() - started:.0f} s", flush=True)
    return folder


def digest(sources: Path) -> str:
    """Changes with whatever programs are made of."""
    made_of = hashlib.sha256()
    for path in sorted(sources.rglob("*")):
        if path.is_file():
            made_of.update(f"{path.relative_to(sources)}\n".encode() + path.read_bytes())
    return made_of.hexdigest()[:12]


def _pinned(pattern: str) -> str:
    """What go.mod says."""
    found = re.search(pattern, (SOURCES / "go.mod").read_text(), re.MULTILINE)
    assert found, pattern
    return found[1]


def _versions() -> str:
    """What the programs call themselves; builds of Kubernetes set it from outside."""
    version = _pinned(r"^\tk8s\.io/kubernetes (v\S+)$")
    major, minor, _patch = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return " ".join(f"-X {package}.{name}={value}" for package in packages for name, value in values.items())
