"""The built artifact, in an empty path beside its dependencies, used from a folder without a trace of the checkout."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from parts.running import BIN, ROOT, Check, Log, checkout_files, make_home, temporary_folder, verdict

PLAYBOOK = BIN / "ansible-playbook"
INVENTORY = ["-i", "inventory.yml"]
FRONT = "http://localhost:18480/"
"""Where the front proxy of that inventory answers."""


@dataclass(frozen=True)
class Foreign:
    """Somebody else's project: its folder, and an environment that finds the installed collection and no other."""

    folder: Path
    env: dict[str, str]


def run(log: Log) -> list[Check]:
    with temporary_folder() as folder:
        artifact = build(log, folder)
        foreign = _install(log, artifact, folder)
        return [
            _holds_only_what_a_clone_holds(artifact),
            *_documentation(log, foreign),
            _filters(log, foreign),
            *_mesh(log, foreign),
        ]


def build(log: Log, folder: Path) -> Path:
    """Build from the checkout as it lies here, with whatever .venv and caches it holds."""
    log.must([BIN / "ansible-galaxy", "collection", "build", "--output-path", folder], env=make_home(folder))
    return next(folder.glob("*.tar.gz"))


def _holds_only_what_a_clone_holds(artifact: Path) -> Check:
    with tarfile.open(artifact) as archive:
        names = {member.name for member in archive if not member.isdir()}
    surplus = sorted(names - set(checkout_files()) - {"MANIFEST.json", "FILES.json"})
    return verdict("the artifact holds only what a clone holds", not surplus, f"also in it: {', '.join(surplus[:10])}")


def _install(log: Log, artifact: Path, folder: Path) -> Foreign:
    collections = folder / "collections"
    packages = next((ROOT / ".venv" / "lib").glob("python*/site-packages/ansible_collections"))
    for dependency in json.loads(_manifest(artifact))["collection_info"]["dependencies"]:
        namespace, name = dependency.split(".")
        link = collections / "ansible_collections" / namespace / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(packages / namespace / name)
    project = folder / "project"
    shutil.copytree(ROOT / "tests" / "artifact", project)
    env = {**make_home(folder / "home"), "ANSIBLE_COLLECTIONS_PATH": str(collections)}
    foreign = Foreign(project, env)
    install = ["collection", "install", "--offline", "--collections-path", collections, artifact]
    log.must([BIN / "ansible-galaxy", *install], cwd=project, env=env)
    return foreign


def _manifest(artifact: Path) -> bytes:
    with tarfile.open(artifact) as archive:
        member = archive.extractfile("MANIFEST.json")
        assert member is not None
        return member.read()


def _documentation(log: Log, foreign: Foreign) -> list[Check]:
    """Every filter, module and role has a page, found by its full name in the installed copy."""
    names = {
        "filter": (path.stem for path in ROOT.glob("plugins/filter/*.py")),
        "module": (path.stem for path in ROOT.glob("plugins/modules/*.py")),
        "role": (path.parent.parent.name for path in ROOT.glob("roles/*/tasks/main.yml")),
    }
    pages = [(kind, f"sidecar.mesh.{name}") for kind, of_kind in names.items() for name in sorted(of_kind)]
    return [_page(log, foreign, kind, name) for kind, name in pages]


def _page(log: Log, foreign: Foreign, kind: str, name: str) -> Check:
    output = log.run([BIN / "ansible-doc", "--type", kind, "--json", name], cwd=foreign.folder, env=foreign.env)[1]
    installed = foreign.env["ANSIBLE_COLLECTIONS_PATH"]
    found = re.search(rf'"(?:filename|path)": "{re.escape(installed)}/', output)
    return verdict(f"ansible-doc --type {kind} {name}", bool(found), "no page in the installed collection")


def _filters(log: Log, foreign: Foreign) -> Check:
    command = [PLAYBOOK, "filters.yml"]
    return log.check("a foreign playbook uses the filters", command, cwd=foreign.folder, env=foreign.env)


def _mesh(log: Log, foreign: Foreign) -> list[Check]:
    """The collection's playbooks by name, with the user's inventory."""
    site = _mesh_playbook(log, foreign, "site")
    answers = _answers()
    return [site, answers, _mesh_playbook(log, foreign, "verify"), _mesh_playbook(log, foreign, "reset")]


def _mesh_playbook(log: Log, foreign: Foreign, name: str) -> Check:
    command = [PLAYBOOK, f"sidecar.mesh.{name}", *INVENTORY]
    return log.check(f"ansible-playbook sidecar.mesh.{name}", command, cwd=foreign.folder, env=foreign.env)


def _answers() -> Check:
    try:
        with urllib.request.urlopen(FRONT, timeout=10) as response:
            return verdict(FRONT, response.status == 200, f"HTTP {response.status}")
    except OSError as error:
        return Check(FRONT, "failed", str(error))
