# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a machine decides whether k3s runs on it, and what of k3s is there already.

Read from files below ``root``, so that tests bring a tree of their own. This runs on nodes: Python 3.9 is enough.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import itertools
import os
import re
import shutil
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_requirements as required
from ansible_collections.sidecar.mesh.plugins.module_utils import sockets

Facts = dict[str, Any]
Run = Callable[[list[str]], str]
"""Runs a command and returns what it prints; nothing when it fails or is not there."""

MARK = "sidecar.mesh.k3s"
"""In the first line of every file that role k3s writes."""
UNITS = ("k3s", "k3s-agent")
CONFIG = "etc/rancher/k3s/config.yaml"
REGISTRIES = "etc/rancher/k3s/registries.yaml"
TOKEN = "etc/rancher/k3s/token"  # noqa: S105 - where it lies
CNI_FOLDER = "etc/cni/net.d"
LINKS = ("kubectl", "crictl", "ctr")
"""Names by which k3s' binary is these programs, too."""

_MEGABYTE = 1024 * 1024
_CHUNK = 1024 * 1024
_VERSION = re.compile(r"^k3s version (\S+)", re.MULTILINE)
_OWN_CGROUP = re.compile(r"/k3s(-agent)?\.service(/|$)", re.MULTILINE)
_FIREWALLS = ("firewalld", "ufw")
_SOMEWHERE = "8.8.8.8"
"""By which Ansible's facts find the default route, too; nothing is sent to it."""
_LIST_IMAGES = ("ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
_PATIENCE = 2
"""Seconds an API server has to say whether it is ready."""
_SELINUX_POLICY = "usr/share/selinux/packages/k3s.pp"


def identity(root: Path) -> Facts:
    """Which machine it is, and where. Facts of ansible.builtin.setup would say it, too, and take a node with many pods
    longer than all the rest."""
    system, address = os.uname(), _default_address()
    around = [one["network"] for one in _networks(root) if address and _is_in(address, one["network"])]
    return {
        "architecture": system.machine,
        "kernel": system.release,
        "nodename": system.nodename,
        "address": address,
        "network": max(around, key=lambda network: ipaddress.ip_network(network).prefixlen, default=""),
    }


def machine(root: Path, data_path: str, run: Run) -> Facts:
    """What has nothing to do with k3s itself. Sizes are in MB, ``time`` in seconds since 1970."""
    return {
        "time": time.time(),
        "memory": _memory(root),
        "disk_free": _disk_free(root / data_path.lstrip("/")),
        "systemd": (root / "run/systemd/system").is_dir(),
        "cgroup": _cgroup(root),
        "modules": {name: _module(root, name) for name in sorted({*itertools.chain(*required.MODULES.values())})},
        "sysctls": {name: _sysctl(root, name) for name in [*required.SYSCTLS, *required.PROTECTED]},
        "networks": _networks(root),
        "cni": sorted(path.name for path in _children(root / CNI_FOLDER) if not path.name.startswith(".")),
        "firewalls": [name for name in _FIREWALLS if run(["systemctl", "is-active", name]).strip() == "active"],
        "selinux_without_policy": _text(root / "sys/fs/selinux/enforce").strip() == "1"
        and not (root / _SELINUX_POLICY).exists(),
    }


def installed(
    root: Path, program: str, data_path: str, token: str, seal: str, hashed: bool, archives: Iterable[str], run: Run
) -> Facts:
    """What of k3s is there. ``token`` is compared with that of the cluster, which is not told; ``seal`` is a secret for
    :func:`_tokens`; ``archives`` are names of files in its folder of images."""
    data = root / data_path.lstrip("/")
    images = data / "agent/images"
    path = root / program.lstrip("/")
    services = {unit: root / f"etc/systemd/system/{unit}.service" for unit in UNITS}
    environments = {unit: file.with_suffix(".service.env") for unit, file in services.items()}
    folders = [(root / CONFIG).parent, images]
    written = [root / CONFIG, root / REGISTRIES, *services.values(), *environments.values(), *folders]
    units = unit_states(run(["systemctl", "show", "--property", ",".join(_PROPERTIES), *_services()]))
    files = [root / CONFIG, root / REGISTRIES, root / TOKEN, path]
    for unit in units:
        units[unit]["whose"] = _whose(services[unit])
        units[unit]["stale"] = _newer([*files, services[unit], environments[unit]], units[unit]["started"])
    return {
        "version": version(run([str(path), "--version"])) if path.exists() else "",
        "sha256": digest(path, "sha256") if hashed and path.exists() else "",
        "archives": {name: size_and_time(images / name) for name in archives if (images / name).is_file()},
        "units": units,
        "data": bool(_children(data)),
        "datastore": _datastore(data),
        "answers": answers(data / "server/tls"),
        "images": run([str(path), *_LIST_IMAGES]).split() if any(unit["started"] for unit in units.values()) else [],
        "authority": _authority(data),
        "config": told(_text(root / CONFIG)),
        "configuration": _whose(root / CONFIG),
        "registries": _whose(root / REGISTRIES),
        "written": {f"/{file.relative_to(root)}": _as_written(file) for file in written if file.exists()},
        "token": _token(data, token),
        "tokens": _tokens(root / TOKEN, data, seal),
        "own_links": [name for name in LINKS if _leads_to(path.parent / name, program)],
        "links": [name for name in LINKS if os.path.lexists(path.parent / name) or shutil.which(name)],
    }


def version(output: str) -> str:
    """The version in what ``k3s --version`` prints, or nothing."""
    match = _VERSION.search(output)
    return match[1] if match else ""


def digest(path: Path, algorithm: str) -> str:
    """A file's sum in hexadecimal."""
    sum_ = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            sum_.update(chunk)
    return sum_.hexdigest()


def size_and_time(path: Path) -> str:
    """Size of a file in bytes, and when it was changed, in seconds since 1970; nothing where there is none."""
    with contextlib.suppress(OSError):
        status = path.stat()
        return f"{status.st_size} {int(status.st_mtime)}" if stat.S_ISREG(status.st_mode) else ""
    return ""


def answers(folder: Path, port: int = 6443) -> bool:
    """Whether the API server of this machine says that it is ready, to the admin whose certificate is in a folder."""
    admin = (folder / "client-admin.crt", folder / "client-admin.key")
    with contextlib.suppress(OSError, http.client.HTTPException):
        context = ssl.create_default_context(cafile=str(folder / "server-ca.crt"))
        context.load_cert_chain(*admin)
        with contextlib.closing(
            http.client.HTTPSConnection("127.0.0.1", port, timeout=_PATIENCE, context=context)
        ) as asking:
            asking.request("GET", "/readyz")
            return asking.getresponse().status == http.client.OK
    return False


def ports() -> dict[str, str]:
    """Who holds each of the ports that k3s may take, unless it is k3s itself."""
    wanted = {*required.SERVER_PORTS, *required.ETCD_PORTS, *required.AGENT_PORTS}
    bound = [one for one in sockets.bound_sockets("tcp") if one.port in wanted]
    holders = [holder for holder in sockets.holders(bound) if not _is_own(holder.pid)]
    return {str(holder.socket.port): str(holder) for holder in holders}


def told(config: str) -> Facts:
    """Of a config.yaml of ours, which has them as plain lines: how the node found its cluster, and the networks."""
    found = dict(re.findall(r"^([a-z-]+): *[\"']?([^\"'\n]*)[\"']?$", config, re.MULTILINE))
    return {
        "server": found.get("server", ""),
        "cluster-init": found.get("cluster-init") == "true",
        "cluster-cidr": found.get("cluster-cidr", ""),
        "service-cidr": found.get("service-cidr", ""),
    }


# Units

_PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "ExecMainStartTimestampMonotonic")


def _services() -> list[str]:
    return [f"{unit}.service" for unit in UNITS]


def unit_states(output: str, now: float | None = None, monotonic: float | None = None) -> dict[str, Facts]:
    """Of what ``systemctl show`` prints: state of each unit that is there; ``started`` in seconds since 1970, or 0."""
    now = time.time() if now is None else now
    monotonic = time.monotonic() if monotonic is None else monotonic
    found: dict[str, Facts] = {}
    for block in output.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        if values.get("LoadState") in (None, "not-found"):
            continue
        since = int(values.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
        active = values.get("ActiveState", "")
        found[values["Id"][: -len(".service")]] = {
            "active": active,
            "enabled": values.get("UnitFileState") == "enabled",
            "started": now - monotonic + since if since and active in ("active", "activating", "reloading") else 0.0,
        }
    return found


def _newer(files: list[Path], started: float) -> list[str]:
    """The files that changed after a unit was started, which it may not have read."""
    if not started:
        return []
    return [file.name for file in files if file.exists() and file.stat().st_mtime > started]


# The cluster it belongs to


def _datastore(data: Path) -> str:
    """etcd, sqlite, or nothing."""
    if _children(data / "server/db/etcd/member"):
        return "etcd"
    return "sqlite" if (data / "server/db/state.db").exists() else ""


def _authority(data: Path) -> str:
    """A digest of the certificate that all nodes of a cluster trust, or nothing."""
    for name in ("server/tls/server-ca.crt", "agent/server-ca.crt"):
        text = _text(data / name).strip()
        if text:
            return hashlib.sha256(text.encode()).hexdigest()
    return ""


def _token(data: Path, wanted: str) -> str:
    """Whether a server's token is the wanted one: same, other, or nothing where there is nothing to compare."""
    present = _text(data / "server/token").strip()
    if not present or not wanted:
        return ""
    return "same" if password(present) == password(wanted.strip()) else "other"


def _tokens(given: Path, data: Path, seal: str) -> dict[str, str]:
    """Which tokens are the same, here and on other nodes: that which the node was ``given``, and those by which a
    server or an agent joins this ``server``. Without the secret nobody can guess a token by what is told."""
    private = given.exists() and stat.S_IMODE(given.stat().st_mode) == 0o600
    files = {"given": given, "server": data / "server/token", "agent": data / "server/agent-token"}
    texts = {name: _text(file).strip() for name, file in files.items() if name != "given" or private}
    return {
        name: hmac.new(seal.encode(), text.encode(), "sha256").hexdigest()
        for name, text in texts.items()
        if text and seal
    }


def password(token: str) -> str:
    """A token without the digest and the user's name before it, as in ``K10…::server:password``."""
    secured = token.partition("::")[2] if token.startswith("K10") else token
    return secured.partition(":")[2] if secured.startswith("server:") else secured


# The machine


def _memory(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) // 1024 if match else 0


def _disk_free(path: Path) -> int:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    status = os.statvfs(existing)
    return status.f_bavail * status.f_frsize // _MEGABYTE


def _cgroup(root: Path) -> Facts:
    unified = root / "sys/fs/cgroup/cgroup.controllers"
    if unified.exists():
        return {"version": 2, "controllers": _text(unified).split()}
    rows = [line.split() for line in _text(root / "proc/cgroups").splitlines() if not line.startswith("#")]
    return {"version": 1, "controllers": [row[0] for row in rows if len(row) > 3 and row[3] == "1"]}


def _module(root: Path, name: str) -> str:
    """Whether the kernel has a module: present, absent, or unknown where modules cannot be seen, as in a container."""
    filesystems = _text(root / "proc/filesystems")
    if (root / "sys/module" / name).exists() or re.search(rf"\t{name}$", filesystems, re.MULTILINE):
        return "present"
    folder = root / "lib/modules" / os.uname().release
    lists = [folder / "modules.dep", folder / "modules.builtin"]
    if not any(file.exists() for file in lists):
        return "unknown"
    file_name = re.compile(rf"/{name.replace('_', '[_-]')}\.ko", re.MULTILINE)
    return "present" if any(file_name.search(_text(file)) for file in lists) else "absent"


def _sysctl(root: Path, name: str) -> str:
    return _text(root / "proc/sys" / name.replace(".", "/")).strip()


def _networks(root: Path) -> list[dict[str, str]]:
    """The IPv4 networks the machine has routes to, with their interfaces; the default route is none."""
    found = []
    for line in _text(root / "proc/net/route").splitlines()[1:]:
        fields = line.split()
        destination, mask = (int.from_bytes(bytes.fromhex(fields[index]), "little") for index in (1, 7))
        if mask:
            network = ipaddress.ip_network(f"{ipaddress.ip_address(destination)}/{bin(mask).count('1')}")
            found.append({"interface": fields[0], "network": str(network)})
    return found


def _is_in(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _default_address() -> str:
    """The address from which the machine would speak to the world."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((_SOMEWHERE, 9))
        return str(asking.getsockname()[0])
    return ""


def _is_own(pid: int | None) -> bool:
    return pid is not None and bool(_OWN_CGROUP.search(_text(sockets.PROC / str(pid) / "cgroup")))


def _children(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _leads_to(link: Path, program: str) -> bool:
    return link.is_symlink() and str(link.readlink()) == program


def _whose(path: Path) -> str:
    """Who wrote a file: ours, others, or nothing where there is none."""
    if not path.exists():
        return ""
    return "ours" if MARK in _text(path).partition("\n")[0] else "others"


def _as_written(path: Path) -> str:
    """Mode and SHA-1 of a file, such as ``0600 2fd4e1c6…``; of a folder its mode."""
    mode = f"{stat.S_IMODE(path.stat().st_mode):04o}"
    return mode if path.is_dir() else f"{mode} {digest(path, 'sha1')}"


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes().decode(errors="replace")
    return ""
