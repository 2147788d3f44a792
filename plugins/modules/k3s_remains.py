#!/usr/bin/python
# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_remains
short_description: Remove what k3s and Cilium leave on a machine
version_added: 0.1.0
description:
  - For after k3s was stopped. Ends its containers, and removes Cilium's filters, links and rules, mounts, and then
    folders and files.
  - Rules of others stay. No table is flushed. Folders are removed only when nothing is mounted below them any more.
  - This module serves role P(sidecar.mesh.k3s#role).
author:
  - sidecar.mesh contributors (@sidecar-mesh)
attributes:
  check_mode:
    support: full
    description: Tells what would be removed.
  diff_mode:
    support: none
    description: Shows no diff; C(removed) tells everything.
options:
  data_path:
    description: Where k3s keeps its data.
    type: path
    default: /var/lib/rancher/k3s
  paths:
    description: Files and folders to remove, in this order.
    type: list
    elements: path
    default: []
  empty_paths:
    description: Folders to remove if nothing is left in them, in this order.
    type: list
    elements: path
    default: []
seealso:
  - module: sidecar.mesh.k3s_node_info
"""

EXAMPLES = r"""
- name: Remove what is left of k3s
  sidecar.mesh.k3s_remains:
    paths: [/etc/rancher/k3s, /var/lib/kubelet, /var/lib/rancher/k3s]
    empty_paths: [/etc/rancher, /var/lib/rancher]
"""

RETURN = r"""
removed:
  description: What was removed, by kind.
  returned: always
  type: dict
  sample: {"links": ["cilium_host"], "processes": 4}
"""

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.sidecar.mesh.plugins.module_utils import k3s_remains

PROC = Path("/proc")
BPF = Path("/sys/fs/bpf")
BELOW = ("/run/k3s", "/var/lib/kubelet", "/run/cilium")
SECONDS = 30
TOOLS = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft")


class Remains:
    """What is there, found and removed kind by kind."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.data_path: str = module.params["data_path"]
        self.removed: dict[str, Any] = {}
        # k3s brings its own iptables to machines that have none.
        bundled = Path(self.data_path) / "data/current/bin"
        self.path = os.pathsep.join(
            [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", str(bundled), str(bundled / "aux")]
        )

    def run(self, *command: str, data: str | None = None, must: bool = True) -> str:
        program = shutil.which(command[0], path=self.path)
        if program is None:
            return ""
        status, output, errors = self.module.run_command([program, *command[1:]], data=data, binary_data=True)
        if status != 0 and must:
            self.module.fail_json(msg=f"{' '.join(command)}: {errors.strip()}", removed=self.removed)
        return output if status == 0 else ""

    def note(self, kind: str, found: Any) -> bool:
        """Keep what was found; whether it is to be removed now."""
        if found:
            self.removed[kind] = found
        return bool(found) and not self.module.check_mode

    def end_processes(self) -> None:
        pids = k3s_remains.processes(processes(), self.data_path)
        if not self.note("processes", len(pids)):
            return
        until = time.monotonic() + SECONDS
        while pids and time.monotonic() < until:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.2)
            pids = k3s_remains.processes(processes(), self.data_path)

    def remove_filters(self) -> None:
        for name in interfaces():
            for direction in ("ingress", "egress"):
                shown = self.run("tc", "-json", "filter", "show", "dev", name, direction, must=False)
                found = k3s_remains.filters(shown)
                if self.note(f"filters {name} {direction}", len(found)):
                    place = ("dev", name, direction)
                    for preference, protocol in found:
                        self.run("tc", "filter", "del", *place, "pref", preference, "protocol", protocol)
        pins = [path for path in (BPF / "cilium", *(BPF / "tc/globals").glob("cilium_*")) if path.exists()]
        if self.note("bpf", [str(path) for path in pins]):
            for path in pins:
                remove(path)

    def remove_links(self) -> None:
        found = k3s_remains.links(interfaces())
        if self.note("links", found):
            for name in found:
                # Its other end may have taken it along.
                self.run("ip", "link", "delete", name, must=False)

    def remove_rules(self) -> None:
        for tool in TOOLS:
            script = k3s_remains.restore_script(self.run(f"{tool}-save", must=False))
            if self.note(f"rules {tool}", script.count("\n-")):
                self.run(f"{tool}-restore", "--noflush", data=script)
        for family in ("-4", "-6"):
            found = k3s_remains.routing_rules(self.run("ip", family, "-json", "rule", "show", must=False))
            if self.note(f"routing rules {family}", len(found)):
                for arguments in found:
                    self.run("ip", family, "rule", *arguments)

    def unmount(self) -> None:
        below = [*BELOW, self.data_path]
        found = mounted(below)
        if not self.note("mounts", found):
            return
        for point in found:
            self.run("umount", point, must=False)
        for point in mounted(below):
            self.run("umount", "--lazy", point, must=False)
        left = mounted(below)
        if left:
            self.module.fail_json(
                msg=f"still mounted: {', '.join(left)}; nothing below was removed: unmount it, and run again",
                removed=self.removed,
            )
        for namespace in Path("/run/netns").glob("cni-*"):
            self.run("ip", "netns", "delete", namespace.name, must=False)

    def remove_paths(self) -> None:
        found = [Path(path) for path in self.module.params["paths"] if os.path.lexists(path)]
        if self.note("paths", [str(path) for path in found]):
            for path in found:
                remove(path)
        empty = [Path(path) for path in self.module.params["empty_paths"]]
        empty = [path for path in empty if path.is_dir() and not path.is_mount() and not any(path.iterdir())]
        if self.note("empty paths", [str(path) for path in empty]):
            for path in empty:
                path.rmdir()


def processes() -> list[dict[str, Any]]:
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            ppid = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
            cmdline = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            exe = ""
            with contextlib.suppress(OSError):
                exe = os.readlink(folder / "exe")  # noqa: PTH115 - deleted files have no path that could be resolved
            found.append({"pid": int(folder.name), "ppid": ppid, "exe": exe, "cmdline": cmdline})
    return found


def interfaces() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def mounted(below: list[str]) -> list[str]:
    return k3s_remains.mounts((PROC / "self/mounts").read_text(encoding="utf-8"), below)


def remove(path: Path) -> None:
    """A disk that is mounted there stays, without what was on it."""
    if path.is_dir() and not path.is_symlink():
        if path.is_mount():
            for child in path.iterdir():
                remove(child)
        else:
            shutil.rmtree(path)
    else:
        path.unlink()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "data_path": {"type": "path", "default": "/var/lib/rancher/k3s"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "empty_paths": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    remains = Remains(module)
    remains.end_processes()
    remains.remove_filters()
    remains.remove_links()
    remains.remove_rules()
    remains.unmount()
    remains.remove_paths()
    module.exit_json(changed=bool(remains.removed), removed=remains.removed)


if __name__ == "__main__":
    main()
