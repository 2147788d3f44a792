"""The nodes' image: a Debian with systemd, SSH, sudo and Python, as any new server."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cluster.commands import run
from cluster.debian import bootstrap

from nodes.places import HERE, STATE, USER

INIT = HERE / "init"
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "python3-apt", "ca-certificates"),
    *("iproute2", "iptables", "kmod", "procps", "util-linux", "libfaketime"),
)
MASKED = (
    *("getty.target", "systemd-udevd.service", "systemd-udev-trigger.service", "systemd-remount-fs.service"),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "dev-hugepages.mount"),
    *("sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
)
HOOKS = (
    f'chroot "$1" useradd --create-home --shell /bin/bash {USER}',
    f'echo "{USER} ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/{USER}"',
    'echo "AuthorizedKeysFile /etc/ssh/authorized_keys" > "$1/etc/ssh/sshd_config.d/nodes.conf"',
    f'install -m 755 {INIT} "$1/sbin/init-of-node"',
    # What serves consoles and devices, of which a container has none.
    f'chroot "$1" systemctl --quiet mask {" ".join(MASKED)}',
    # Mount points that programs expect, and what made this image knows.
    'mkdir -p "$1/opt/stand-in" && rm -rf "$1"/etc/apt/sources.list* "$1"/var/lib/apt/lists/*',
)


def name() -> str:
    """Of the image, as podman knows it."""
    made_of = hashlib.sha256(Path(__file__).read_bytes() + INIT.read_bytes()).hexdigest()[:12]
    return f"localhost/sidecar-mesh/bare-node:{made_of}"


def build() -> str:
    """Make the image if it is not there; return its name."""
    image = name()
    if run(*PODMAN, "images", "--quiet", image).strip():
        return image
    print("Making the image of a bare node (about a minute, once)", flush=True)
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    archive = STATE / "node.tar"
    archive.unlink(missing_ok=True)
    bootstrap(archive, variant="minbase", include=PACKAGES, hooks=HOOKS, form="tar")
    run(*PODMAN, "import", "--quiet", archive, image)
    archive.unlink()
    return image


PODMAN = (
    *("podman", "--root", str(STATE / "podman"), "--runroot", "/run/sidecar-mesh-nodes"),
    *("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"),
)
"""podman, with a place of its own: what is in the machine's is not touched."""
