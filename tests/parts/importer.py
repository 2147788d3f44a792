"""galaxy-importer on the built artifact, offline: all but its own run of ansible-test, which needs a container."""

from __future__ import annotations

import re
from pathlib import Path

from parts.artifact import build
from parts.running import ROOT, Check, Log, make_home, own_venv, temporary_folder, verdict


def run(log: Log) -> list[Check]:
    # Its pinned requirements do not fit into .venv.
    tools = own_venv(log, "importer", ["galaxy-importer>=0.4.30"])
    _share_dependencies(tools)
    with temporary_folder() as folder:
        artifact = build(log, folder)
        env = {
            **make_home(folder),
            "PATH": f"{tools}:/usr/bin:/bin",
            "GALAXY_IMPORTER_TMP_ROOT_DIR": str(folder),
        }
        code, output = log.run([tools / "python", "-m", "galaxy_importer.main", artifact], cwd=folder, env=env)
    # The importer installs no dependencies, so it knows none of their modules.
    remarks = [
        remark
        for remark in re.findall(r"^(?:WARNING|ERROR).*", output, re.MULTILINE)
        if not re.search(r"syntax-check\[unknown-module\]: couldn't resolve module/action 'community\.", remark)
    ]
    told = f"{len(remarks)} remarks, the first: {' '.join(remarks[:1])}"
    return [
        verdict("galaxy-importer accepts the artifact", not code, f"exit code {code}"),
        verdict("galaxy-importer has no remarks", not remarks, told),
    ]


def _share_dependencies(tools: Path) -> None:
    """Let the importer's ansible-lint find the collections of .venv; it takes no path for them."""
    found = next((ROOT / ".venv" / "lib").glob("python*/site-packages/ansible_collections"))
    link = next(tools.parent.glob("lib/python*/site-packages")) / found.name
    link.unlink(missing_ok=True)
    link.symlink_to(found)
