"""Images without a registry: archives in the cache, imported into each node."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.build import programs
from cluster.commands import run
from cluster.components import PAUSE
from cluster.places import NODES, STATE, Node

COREDNS = "localhost/sidecar-mesh/coredns:1"


def import_archive(archive: Path) -> None:
    """Import an image archive (of `docker save`, or OCI) into every node; skipped where the same file has been."""
    for node in NODES:
        done = node.folder / "imported" / hashlib.sha256(str(_signature(archive)).encode()).hexdigest()
        if not done.exists():
            run(programs() / "ctr", *_socket(node), "images", "import", archive)
            done.parent.mkdir(exist_ok=True)
            done.touch()


def system_images() -> list[Path]:
    """Make the archives of what every cluster runs."""
    built = programs()
    return [
        _archived(PAUSE, built / "pause", {"User": "65535:65535"}),
        _archived(COREDNS, built / "coredns", {}),
    ]


def _socket(node: Node) -> list[object]:
    return ["--address", node.containerd, "--namespace", "k8s.io"]


def _signature(archive: Path) -> tuple[str, int, int]:
    stat = archive.stat()
    return str(archive.resolve()), stat.st_size, stat.st_mtime_ns


def _archived(name: str, program: Path, config: Mapping[str, Any]) -> Path:
    """An image of one program."""
    archive = program.with_suffix(".image.tar")
    if not archive.exists():
        layer = STATE / f"{program.name}.layer.tar"
        with tarfile.open(layer, "w") as tar:
            tar.add(program, program.name)
        write_archive(archive, name, layer, {"Entrypoint": [f"/{program.name}"], **config})
        layer.unlink()
    return archive


def write_archive(archive: Path, name: str, layer: Path, config: Mapping[str, Any]) -> None:
    """Write an image of one layer, as `docker save` does."""
    with layer.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": dict(config),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    unfinished = archive.with_suffix(".new")
    with tarfile.open(unfinished, "w") as tar:
        for path, content in (("config.json", image), ("manifest.json", manifest)):
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(path)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        tar.add(layer, "layer.tar")
    unfinished.rename(archive)
