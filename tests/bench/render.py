"""playbooks/render.yml: a mesh written into a folder, and one service of it changed."""

from __future__ import annotations

import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

from bench import inventories
from bench.generator import SIZE, make
from bench.measuring import BIN, ROOT, Row, processor_time, run

PLAY = """
- hosts: all
  gather_facts: false
  tasks:
"""
NOTHING = """
    - ansible.builtin.ping:
"""
UNARCHIVE = """
    - ansible.builtin.file: {path: "{{ to }}", state: directory, mode: "0755"}
    - ansible.builtin.unarchive: {src: "{{ tar }}", dest: "{{ to }}", remote_src: true}
"""
COMMAND = """
    - ansible.builtin.file: {path: "{{ to }}", state: directory, mode: "0755"}
    - ansible.builtin.command: tar --extract --file {{ tar }} --directory {{ to }}
"""
FILTERS = """
    - ansible.builtin.debug:
        msg: >-
          {{ mesh_services | sidecar.mesh.mesh_model(mesh_front_proxies, engine=mesh_engine)
             | sidecar.mesh.mesh_files | length }}
"""
VALIDATE = """
    - ansible.builtin.find: {paths: "{{ rendered }}/proxies", file_type: directory}
      register: found
    - sidecar.mesh.envoy_validate:
        folders: "{{ found.files | map(attribute='path') | sort }}"
        envoy: "{{ envoy }}"
        cache: "{{ cache }}"
      register: done
    - ansible.builtin.copy: {content: "{{ done.validated | length }}", dest: "{{ result }}", mode: "0644"}
"""
LOCALHOST = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


class Folder:
    """A temporary folder with an inventory and plays; each run writes to a place that is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = 0
        self.variables = path / "inventory" / "group_vars" / "all" / "mesh.yml"
        self.variables.parent.mkdir(parents=True)
        hosts = yaml.safe_dump({"all": {"hosts": {"localhost": LOCALHOST}}})
        (path / "inventory" / "hosts.yml").write_text(hosts)
        (path / "hosts.yml").write_text(hosts)

    def save(self, mesh: dict[str, Any]) -> None:
        self.variables.write_text(yaml.dump(mesh, Dumper=yaml.CSafeDumper, sort_keys=False))

    def new(self) -> Path:
        self.runs += 1
        return self.path / f"out-{self.runs}"

    def play(self, tasks: str, inventory: str = "hosts.yml", **extra: object) -> None:
        (self.path / "play.yml").write_text(PLAY + tasks)
        self._run(self.path / "play.yml", inventory, extra)

    def render(self, to: Path) -> None:
        self._run(ROOT / "playbooks" / "render.yml", "inventory", {"render_path": to})

    def _run(self, playbook: Path, inventory: str, extra: dict[str, object]) -> None:
        words = json.dumps({key: str(value) for key, value in extra.items()})
        run([BIN / "ansible-playbook", "--inventory", self.path / inventory, playbook, "--extra-vars", words])


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        mesh = inventories.mesh(SIZE)
        folder.save(mesh)
        made, tar = folder.new(), folder.path / "made.tar"
        folder.render(made)
        with tarfile.open(tar, "w") as archive:
            archive.add(made / "proxies", "proxies")
        arguments = folder.path / "arguments.json"
        times: dict[str, list[float]] = {}
        for _repetition in range(2):
            for name, action in {
                "ours": lambda: folder.render(folder.new()),
                "again": lambda: folder.render(made),
                "unarchive": lambda: folder.play(UNARCHIVE, tar=tar, to=folder.new()),
                "command": lambda: folder.play(COMMAND, tar=tar, to=folder.new()),
                "start": lambda: folder.play(NOTHING),
                "load": lambda: folder.play(NOTHING, "inventory"),
                "filters": lambda: folder.play(FILTERS, "inventory"),
                "module": lambda: _module(arguments, mesh, folder.new()),
                "build": lambda: make(mesh),
            }.items():
                times.setdefault(name, []).append(processor_time(action))
    best = {name: min(found) for name, found in times.items()}
    loading = best["load"] - best["start"]
    writing = best["module"] - best["build"]
    passing = best["ours"] - best["start"] - loading - best["module"]
    whole, unarchive = "render.yml as a whole", "ansible.builtin.unarchive of the same files"
    return [
        Row(f"render.yml, {SIZE:,} services", best["ours"], unarchive, best["unarchive"], 3),
        Row("the same", best["ours"], "ansible.builtin.command: tar, of the same files", best["command"]),
        Row("a second run, which changes nothing", best["again"], unarchive, best["unarchive"]),
        Row("of it, Ansible starts and ends", best["start"], whole, best["ours"]),
        Row("of it, Ansible reads the inventory", loading, whole, best["ours"]),
        Row("of it, Ansible passes the inventory to the module", passing, whole, best["ours"]),
        Row("of it, the module makes model and configs", best["build"], whole, best["ours"]),
        Row("of it, the module starts, compares and writes", writing, whole, best["ours"]),
        Row("Filters instead, which write nothing", best["filters"] - best["load"], "the module", best["module"]),
    ]


def _module(arguments: Path, mesh: dict[str, Any], to: Path) -> None:
    """The module alone, as Ansible would run it."""
    parameters = {"services": mesh["mesh_services"], "front_proxies": mesh["mesh_front_proxies"]}
    settings = {"engine": mesh["mesh_engine"]}
    arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**parameters, "settings": settings, "path": str(to)}}))
    run([BIN / "python", ROOT / "plugins" / "modules" / "mesh_render.py", arguments])


def change_rows() -> list[Row]:
    """What a change of one service writes and validates, beside what the change concerns."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Folder(Path(temporary))
        mesh = inventories.mesh(SIZE)
        out = folder.new()
        _apply(folder, mesh, out)
        middle = mesh["mesh_services"][SIZE // 2]
        middle["upstreams"][0]["timeout"] = "3s"
        written, validated = _apply(folder, mesh, out)
        own = [
            Row("Files written after the timeout of one upstream changed", written, "its routes", 1, 1, "files"),
            Row("Configs validated then", validated, "those of its service", 1, 1, "configs"),
        ]
        middle["sidecar"] = {"port": 18786}
        written, validated = _apply(folder, mesh, out)
        # Its own listeners and their routes, which have another name now; the clusters of those who call it.
        callers = inventories.UPSTREAMS + 1
        return [
            *own,
            Row(
                "Files written after the port of one sidecar changed",
                written,
                "its own two, a file a caller",
                2 + callers,
                1,
                "files",
            ),
            Row("Configs validated then", validated, "its own and its callers'", 1 + callers, 1, "configs"),
        ]


def _apply(folder: Folder, mesh: dict[str, Any], out: Path) -> tuple[int, int]:
    """Renders and validates; how many files were written and how many configs validated."""
    folder.save(mesh)
    before = _stamps(out)
    folder.render(out)
    written = sum(before.get(path) != stamp for path, stamp in _stamps(out).items())
    result = folder.path / "validated"
    folder.play(VALIDATE, rendered=out, envoy=BIN / "envoy", cache=folder.path / "cache", result=result)
    return written, int(result.read_text())


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file: a file that is written is another one."""
    found = {path: path.stat() for path in folder.glob("proxies/*/*")}
    return {path: (stat.st_ino, stat.st_mtime_ns) for path, stat in found.items()}
