"""Programs of the machine: run them, and install what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PACKAGES = {
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/sbin/nft": "nftables",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/bin/buildah": "buildah",
    "/sbin/ip": "iproute2",
}
"""A file of each Debian package that the cluster needs."""


class Missing(Exception):  # noqa: N818 - the machine lacks it, nothing failed
    """The cluster cannot run here; the message says why, and what helps."""


def run(*command: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its output; what it said is in the error if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def tried(*command: object) -> bool:
    """Whether a command succeeds; nobody cares why it does not."""
    return not subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode


def require_root() -> None:
    if os.geteuid():
        raise Missing(
            "The cluster needs root, for namespaces, links and control groups: run this as root, or name a cluster that"
            " is there: KUBECONFIG=..."
        )


def require_go(version: str) -> None:
    """``version``: that of go.mod; an older Go fetches it itself."""
    if not shutil.which("go"):
        raise Missing(f"go is not on PATH: install Go {version} or newer from https://go.dev/dl, or name it in PATH")


def install_packages(packages: Mapping[str, str]) -> None:
    """Install the Debian packages that are missing; ``packages``: each with a file of it."""
    missing = [package for path, package in packages.items() if not Path(path).exists()]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Missing(f"Missing on this machine: {', '.join(missing)} (their names on Debian). Install them.")
    print(f"Installing {', '.join(missing)}", flush=True)
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "--quiet=2", env=quiet)
    run("apt-get", "install", "--quiet=2", "--yes", "--no-install-recommends", *missing, env=quiet)
