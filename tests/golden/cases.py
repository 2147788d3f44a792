"""The inventories that golden tests render, and what is made of them. Needs PyYAML and nothing else.

python tests/golden/cases.py          prints the digest of every file of every case, made by this Python
python tests/golden/cases.py --json   prints the cases as variables for a playbook
python tests/golden/cases.py FOLDER   prints the digest of what that playbook wrote to a folder
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files  # noqa: E402 - its path comes first
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests  # noqa: E402
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model  # noqa: E402
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies  # noqa: E402

CASES = sorted(path.parent for path in HERE.glob("*/inventory.yml"))
STATE = "/state"
SHIPPED = ROOT / "inventory" / "local" / "group_vars" / "all"

Data = dict[str, Any]


def read(path: Path) -> Data:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def variables(data: Data) -> Data:
    """An inventory's services, front_proxies and settings; those of a shipped one begin with the name of its system."""
    data = dict(data)
    if "shipped" in data:
        named = {name.partition("_")[2]: value for name, value in read(ROOT / data.pop("shipped")).items()}
        data |= {"mesh_services": named["services"], "mesh_front_proxies": named["fronts"]}
    services, fronts = data.pop("mesh_services"), data.pop("mesh_front_proxies", [])
    settings = {name.removeprefix("mesh_"): value for name, value in data.items()}
    return {"services": services, "front_proxies": fronts, "settings": {"state_path": STATE, **settings}}


def model_of(data: Data) -> Data:
    """The model of an inventory's variables."""
    return dict(build_model(**variables(data)))


def demo() -> Data:
    """The shipped systems together, as the demo has them."""
    shipped = [read(path) for path in sorted(SHIPPED.glob("s*.yml"))]
    lists = {
        variable: [item for data in shipped for name in data if name.endswith(ending) for item in data[name]]
        for variable, ending in (("mesh_services", "_services"), ("mesh_front_proxies", "_fronts"))
    }
    return {"mesh_name": "demo", "mesh_engine": "local", **lists}


def everything() -> dict[str, Data]:
    return {**{case.name: read(case / "inventory.yml") for case in CASES}, "demo": demo()}


def made(model: Data) -> Data:
    """All that the filters make of a model."""
    if model["mesh"]["engine"] != "kubernetes":
        return {"files": mesh_files(model)}
    policies = {kind: list(mesh_policies(model, kind).values()) for kind in ("cilium", "kubernetes")}
    return {"files": mesh_files(model), "manifests": mesh_manifests(model), "policies": policies}


def digest(cases: dict[str, Any]) -> str:
    """Of what is made of each case."""
    return hashlib.sha256(json.dumps(cases, sort_keys=True).encode()).hexdigest()


def main() -> None:
    if sys.argv[1:] == ["--json"]:
        print(json.dumps({"cases": [{"name": name, **variables(data)} for name, data in everything().items()]}))
    elif len(sys.argv) > 1:
        print(digest({path.stem: json.loads(path.read_text()) for path in Path(sys.argv[1]).glob("*.json")}))
    else:
        print(digest({name: made(model_of(data)) for name, data in everything().items()}))


if __name__ == "__main__":
    main()
