"""ansible-test sanity without containers, on the oldest and the newest ansible-core that can run here.

ansible-test wants a real folder of the collection's name, so it works in a copy of the checkout. It makes an
environment for each of its tests in ~/.ansible, passes no settings of pip on, and downloads a script that puts pip into
them. So it gets a home of its own, with those settings in a file, and a script that uses the pip Python brings along.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from parts.running import BIN, CACHE, MESH, Check, Log, copy_checkout, make_home, own_venv, read_junit, temporary_folder

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST_PYTHONS = ("3.11", "3.12")
"""The Pythons that the oldest supported ansible-core, 2.17, and this collection both run on."""
NEWEST_PYTHONS = ("3.14", "3.13", "3.12")
"""Those that the newest ansible-core runs on, best first."""

STYLE = ("pep8", "pylint", "pslint", "shellcheck", "yamllint")
"""What does not depend on the ansible-core that runs the collection; the newest one's opinion counts, and half the time
goes into it."""

HOME = CACHE / "sanity"
GET_PIP = """\
import subprocess
import sys

subprocess.check_call([sys.executable, "-m", "ensurepip"])
"""


@dataclass(frozen=True)
class Core:
    requirement: str
    python: str
    without: tuple[str, ...] = ()
    """Tests that are left out."""


def run(log: Log) -> list[Check]:
    found = find_pythons()
    cores, checks = choose_cores(found)
    for core in cores:
        checks += _sanity(log, core, found)
    return checks


def find_pythons() -> dict[str, Path]:
    """Those of the supported Pythons that are on this machine."""
    return {version: path for version in PYTHONS if (path := _find_python(version))}


def core_tools(log: Log, core: Core, pythons: dict[str, Path]) -> Path:
    """The bin folder of an environment with that ansible-core."""
    name = core.requirement.strip(".*").replace("==", "-")
    return own_venv(log, f"{name}-python-{core.python}", [core.requirement], python=pythons[core.python])


def choose_cores(found: dict[str, Path]) -> tuple[list[Core], list[Check]]:
    """The cores to test with, and a skipped check for each that should be among them but has no Python here."""
    skipped = []
    oldest = [Core("ansible-core==2.17.*", version, STYLE) for version in OLDEST_PYTHONS if version in found]
    if not oldest:
        skipped.append(Check("the oldest ansible-core", "skipped", f"it needs Python {' or '.join(OLDEST_PYTHONS)}"))
    newest = [Core("ansible-core", version) for version in NEWEST_PYTHONS if version in found]
    if not newest:
        reason = f"it needs Python {' or '.join(reversed(NEWEST_PYTHONS))}; the newest for {min(found)} took its place"
        skipped.append(Check("the newest ansible-core", "skipped", reason))
        newest = [Core("ansible-core", min(found))]
    return oldest[:1] + newest[:1], skipped


def _find_python(version: str) -> Path | None:
    """A real interpreter of that version on PATH, or one that pyenv has installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    names = [sys.executable, shutil.which(f"python{version}"), *pyenv.glob(f"versions/{version}.*/bin/python{version}")]
    tell = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2], sys.base_prefix)"
    for name in filter(None, names):
        done = subprocess.run([str(name), "-c", tell], capture_output=True, text=True, check=False)
        told, _space, prefix = done.stdout.strip().partition(" ")
        if told == version:
            return Path(prefix) / "bin" / f"python{version}"
    return None


def _sanity(log: Log, core: Core, pythons: dict[str, Path]) -> list[Check]:
    tools = core_tools(log, core, pythons)
    tell = "from ansible.release import __version__; print(__version__)"
    version = log.must([tools / "python", "-c", tell]).split()[-1]
    home = _prepare_home(tools)
    # Folders of real interpreters, and no pyenv shims, which answer to versions that are not there.
    folders = [tools, *(path.parent for path in pythons.values()), BIN]
    path = [*map(str, folders), *(name for name in os.environ["PATH"].split(os.pathsep) if Path(name).name != "shims")]
    with temporary_folder() as folder:
        copy = folder / MESH
        copy_checkout(copy)
        shutil.rmtree(copy / ".collections")  # its link would be followed round and round
        code, output = log.run(
            [
                tools / "ansible-test",
                "sanity",
                "--junit",
                "--color",
                "no",
                *(f"--skip-test={name}" for name in core.without),
            ],
            cwd=copy,
            env={**home, "PATH": os.pathsep.join(path)},
        )
        reports = sorted(copy.glob("tests/output/junit/*.xml"))
        checks = [check for report in reports for check in read_junit(report) if check.reason != "No tests applicable."]
    if code and not any(check.state == "failed" for check in checks):
        checks.append(Check("ansible-test", "failed", output.splitlines()[-1]))
    return [Check(f"core {version} {check.name}", check.state, check.reason) for check in checks]


def _prepare_home(tools: Path) -> dict[str, str]:
    requirements = next(tools.parent.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"))
    scripts = HOME / ".ansible" / "test" / "cache"
    scripts.mkdir(parents=True, exist_ok=True)
    for version in re.findall(r"\bpip='([\d.]+)'", requirements.read_text()):
        (scripts / f"get_pip_{version.replace('.', '_')}.py").write_text(GET_PIP)
    return make_home(HOME)
