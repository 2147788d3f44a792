"""The control plane's image, built by the collection's own role."""

from __future__ import annotations

from pathlib import Path

from behaviour.machine import ROOT

from cluster import images
from cluster.commands import install_packages
from cluster.plays import must_run


def image(folder: Path) -> str:
    """Its name, once it is in every node. ``folder``: where the role leaves archives."""
    install_packages({"/usr/bin/podman": "podman"})
    images.base_images()
    build = {
        "name": "control-plane",
        "repository": "control-plane",
        "context": str(ROOT),
        "dockerfile": "roles/images/files/control-plane/Dockerfile",
        "args": {"BASE_IMAGE": f"docker-archive:{images.FOLDER}/python-1.tar"},
    }
    # As molecule's scenarios build the applications.
    seen = [f"--volume={path}:{path}:ro" for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
    settings = {
        "images_builds": [build],
        "images_archives": str(folder),
        "images_builder": "podman",
        "images_build_extra_args": ["--isolation=chroot", *seen],
    }
    play = must_run(folder, "images", settings)
    images.import_archive(next(folder.glob("control-plane-*.tar")))
    facts = (result.get("ansible_facts", {}) for _name, result in play.tasks)
    return str(next(each["images_references"]["control-plane"] for each in facts if "images_references" in each))
