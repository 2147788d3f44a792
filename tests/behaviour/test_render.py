"""playbooks/render.yml: what it writes, what it leaves, and that a change of one service is a change of its files."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.manifests import mesh_manifests
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.policies import mesh_policies
from behaviour.machine import BIN, COLLECTIONS, run_module

Item = dict[str, Any]
Files = dict[str, str]

LIST = ".made-by-sidecar-mesh"
MESH = yaml.safe_load("""
mesh_name: shop
mesh_services:
  - {name: shop, image: i, command: [x], port: 8080,
     upstreams: [{service: stock, port: 9001}, {service: mail, port: 9002}]}
  - {name: stock, image: i, command: [x], port: 8080, replicas: 2, upstreams: [{service: mail, port: 9001}]}
  - {name: mail, image: i, command: [x], port: 2525, protocol: tcp}
mesh_front_proxies:
  - {name: front, listeners: [{port: 8088}], routes: [{prefix: /, service: shop}]}
""")


@pytest.fixture
def mesh() -> Item:
    return copy.deepcopy(MESH)


class Render:
    """The playbook, run by its full name in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.to = folder / "rendered"

    def run(self, mesh: Item, *options: str) -> tuple[int, Item]:
        """The exit code, and the result of the task that writes."""
        interpreter = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
        inventory = {"all": {"hosts": {"localhost": interpreter}, "vars": mesh}}
        (self.folder / "mesh.yml").write_text(yaml.safe_dump(inventory))
        # No Envoy, and nothing else that an engine needs, is to be found.
        environment = {
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_HOME": str(self.folder / "ansible"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
            "HOME": str(self.folder / "home"),
            "XDG_STATE_HOME": "/state",
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", "mesh.yml", "sidecar.mesh.render", *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        tasks = json.loads(done.stdout)["plays"][0]["tasks"]
        return done.returncode, tasks[-1]["hosts"]["localhost"]

    def must_run(self, mesh: Item, *options: str) -> Item:
        code, result = self.run(mesh, *options)
        assert code == 0, result
        return result

    def files(self) -> Files:
        """Text by path, the list aside."""
        found = [path for path in sorted(self.to.rglob("*")) if path.is_file() and path.name != LIST]
        return {str(path.relative_to(self.to)): path.read_text() for path in found}


@pytest.fixture
def render(tmp_path: Path) -> Render:
    (tmp_path / "home").mkdir()
    return Render(tmp_path)


def expected(mesh: Item, engine: str) -> Files:
    settings = {"name": "shop", "engine": engine, "state_path": "/state/sidecar-mesh/shop" if engine == "local" else ""}
    model = build_model(mesh["mesh_services"], mesh["mesh_front_proxies"], settings)
    made = mesh_files(model)
    files = {f"proxies/{proxy['name']}/{name}": text for proxy in made for name, text in proxy["files"].items()}
    return {**files, **(manifests(model) if engine == "kubernetes" else {})}


def manifests(model: Item) -> Files:
    """As the filters make them, a folder for each workload, and what holds them together."""
    objects = {item["workload"]: list(item["objects"]) for item in mesh_manifests(model)}
    for workload, policy in mesh_policies(model).items():
        objects[workload].append(policy)
    files = {f"{folder}/{item['kind'].lower()}.yaml": item for folder, items in objects.items() for item in items}
    lists = {folder: [f"{item['kind'].lower()}.yaml" for item in items] for folder, items in objects.items()}
    header = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    files |= {f"{folder}/kustomization.yaml": {**header, "resources": names} for folder, names in lists.items()}
    files["kustomization.yaml"] = {**header, "resources": list(objects)}
    return {f"manifests/{path}": envoy_yaml.dump(item) for path, item in files.items()}


@pytest.mark.parametrize("engine", ["kubernetes", "local"])
def test_it_writes_what_the_filters_make_and_then_nothing(render: Render, mesh: Item, engine: str) -> None:
    mesh["mesh_engine"] = engine
    first = render.must_run(mesh)
    assert render.files() == expected(mesh, engine)
    assert (first["changed"], first["written"]) == (True, sorted(expected(mesh, engine)))

    inodes = {path: path.stat().st_ino for path in render.to.rglob("*")}
    second = render.must_run(mesh)
    assert (second["changed"], second["unchanged"]) == (False, len(first["written"]))
    assert {path: path.stat().st_ino for path in render.to.rglob("*")} == inodes


def test_check_mode_tells_what_the_next_run_does_and_writes_nothing(render: Render, mesh: Item) -> None:
    for change in (lambda: None, lambda: mesh["mesh_services"].pop(1), lambda: mesh["mesh_services"][0].update(port=1)):
        change()
        mesh["mesh_services"][0]["upstreams"] = [{"service": "mail", "port": 9002}]
        before = render.files()
        predicted = render.must_run(mesh, "--check", "--diff")
        assert render.files() == before
        done = render.must_run(mesh, "--diff")
        keys = ("changed", "written", "removed", "unchanged", "diff")
        assert {key: predicted[key] for key in keys} == {key: done[key] for key in keys}
        shown = {str(Path(item["after_header"]).relative_to(render.to)): item for item in done["diff"]}
        after = render.files()
        assert {path: (item["before"], item["after"]) for path, item in shown.items()} == {
            path: (before.get(path, ""), after.get(path, ""))
            for path in before.keys() | after.keys()
            if before.get(path) != after.get(path)
        }
        assert shown


def test_files_of_a_service_that_is_gone_go_and_those_of_others_stay(render: Render, mesh: Item) -> None:
    render.must_run(mesh)
    foreign = {"notes.txt": "a", "proxies/stock/notes.txt": "b", "proxies/other/cds.yaml": "c"}
    for path, text in foreign.items():
        (render.to / path).parent.mkdir(exist_ok=True)
        (render.to / path).write_text(text)
    mesh["mesh_services"] = [service for service in mesh["mesh_services"] if service["name"] != "mail"]
    mesh["mesh_services"][0]["upstreams"] = [{"service": "stock", "port": 9001}]
    del mesh["mesh_services"][1]["upstreams"]
    done = render.must_run(mesh)
    assert render.files() == {**expected(mesh, "kubernetes"), **foreign}
    assert "proxies/mail/lds.yaml" in done["removed"]
    assert not (render.to / "proxies" / "mail").exists()

    # Not even an empty mesh takes others' files along.
    render.must_run({"mesh_services": []})
    assert render.files() == foreign


def test_a_list_that_somebody_changed_removes_nothing_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "out", tmp_path / "keep"
    folder.mkdir()
    outside.write_text("mine")
    (folder / LIST).write_text(f"../keep\n{outside}\na/../../keep\n")
    result = run_module("mesh_render", {"path": str(folder), "services": [{"name": "a", "port": 1}]})
    assert (result["removed"], outside.read_text()) == ([], "mine")


def test_what_an_interrupted_run_wrote_is_known_to_the_next(tmp_path: Path) -> None:
    """A folder stands where a file belongs: the run fails half-way."""
    arguments = {"path": str(tmp_path / "out"), "services": [{"name": "a", "port": 1}, {"name": "b", "port": 1}]}
    blocked = tmp_path / "out" / "proxies" / "b" / ".lds.yaml.draft"
    blocked.mkdir(parents=True)
    failed = run_module("mesh_render", arguments)
    assert failed["failed"]
    assert str(blocked) in failed["msg"]
    left = {path.name for path in (tmp_path / "out" / "proxies" / "a").iterdir()}
    assert left
    blocked.rmdir()
    run_module("mesh_render", {**arguments, "services": []})
    assert [path.name for path in (tmp_path / "out").iterdir()] == [LIST]


def test_a_wrong_inventory_writes_nothing_and_names_every_mistake(render: Render, mesh: Item) -> None:
    render.must_run(mesh)
    before = render.files()
    mesh["mesh_services"][0]["protocol"] = "htttp"
    mesh["mesh_services"][1]["upstreams"][0]["service"] = "male"
    code, result = render.run(mesh)
    assert code != 0
    assert result["msg"] == (
        "The mesh inventory has 2 problems:\n"
        "  mesh_services[0].protocol: 'htttp' is not allowed; give http, http2, grpc, tcp or tls, "
        "did you mean 'http'?\n"
        "  mesh_services[1].upstreams[0].service: 'male' is not in mesh_services (known: mail, shop, stock)"
    )
    assert render.files() == before


def test_a_change_of_one_service_writes_and_validates_only_what_it_concerns(tmp_path: Path, mesh: Item) -> None:
    """With the real Envoy, whose cache tells what it validated before."""
    out = tmp_path / "out"

    def apply() -> tuple[list[str], list[str]]:
        services = {"services": mesh["mesh_services"], "front_proxies": mesh["mesh_front_proxies"]}
        written = run_module("mesh_render", {"path": str(out), **services})["written"]
        folders = sorted(str(folder) for folder in (out / "proxies").iterdir())
        envoy = {"envoy": str(BIN / "envoy"), "cache": str(tmp_path / "cache"), "parallel": os.cpu_count()}
        validated = run_module("envoy_validate", {"folders": folders, **envoy})["validated"]
        return written, [Path(name).name for name in validated]

    written, validated = apply()
    assert len(written) == len(expected(mesh, "kubernetes"))
    assert validated == ["front", "mail", "shop", "stock"]
    assert apply() == ([], [])

    mesh["mesh_services"][0]["upstreams"][0]["timeout"] = "3s"
    assert apply() == (["manifests/shop/configmap.yaml", "proxies/shop/rds.egress_9001.yaml"], ["shop"])

    mesh["mesh_services"][1]["sidecar"] = {"port": 18786}
    own = ["proxies/stock/lds.yaml", "proxies/stock/rds.ingress_18786.yaml"]
    objects = [f"manifests/stock/{kind}.yaml" for kind in ("configmap", "deployment", "networkpolicy", "service")]
    callers = ["manifests/shop/configmap.yaml", "manifests/shop/networkpolicy.yaml"]
    assert apply() == ([*callers, *objects, "proxies/shop/cds.yaml", *own], ["shop", "stock"])
