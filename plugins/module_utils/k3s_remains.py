# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What k3s and Cilium leave on a machine when they stop: which processes, mounts, links, rules and filters are theirs.

Each function takes what a program or /proc prints, and tells which part of it is theirs. Nothing else may be named: a
table that is flushed as a whole, or a link too many, costs the machine its network.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

LINKS = re.compile(
    r"^(cilium_(host|net|vxlan|geneve|wg0|ipip[46]|tunl)|lxc_health|lxc[0-9a-f]{12}"
    r"|cni0|flannel\.1|flannel-v6\.1|flannel-wg(-v6)?|kube-ipvs0|kube-bridge|kube-dummy-if)$"
)
"""lxcbr0 and others of LXC are none."""

CHAINS = re.compile(r"^(OLD_)?(CILIUM_|KUBE-|FLANNEL-)")
TABLES_OF_CILIUM = ("2004", "2005")
"""Routing tables of its proxy. Source: Cilium docs, "Routing"."""
PROGRAMS_OF_CILIUM = "cil_"
SOCKET = "/run/k3s/containerd/containerd.sock"

_TARGETS = ("-j", "--jump", "-g", "--goto")


def restore_script(saved: str) -> str:
    """Input for ``iptables-restore --noflush`` that removes what ``iptables-save`` shows of k3s and Cilium; or nothing.

    Rules of others stay as they are, in their order. A chain that is declared is emptied, and can then be removed.
    """
    parts = []
    for table in re.split(r"^\*", saved, flags=re.MULTILINE)[1:]:
        name, _rest, body = table.partition("\n")
        lines = body.splitlines()
        chains = [line[1:].split()[0] for line in lines if line.startswith(":") and CHAINS.match(line[1:])]
        jumps = [f"-D{line[2:]}" for line in lines if line.startswith("-A ") and _is_foreign_rule_of_ours(line)]
        if chains or jumps:
            declared = [f":{chain} - [0:0]" for chain in chains]
            parts += [f"*{name}", *declared, *jumps, *(f"-X {chain}" for chain in chains), "COMMIT"]
    return "".join(f"{line}\n" for line in parts)


def _is_foreign_rule_of_ours(rule: str) -> bool:
    """Whether a rule in a chain of others is k3s' or Cilium's: it leads to their chains, or says so."""
    words = shlex.split(rule)
    if CHAINS.match(words[1]):
        return False  # it goes with its chain
    pairs = [(words[index], words[index + 1]) for index in range(len(words) - 1)]
    leads = any(word in _TARGETS and CHAINS.match(target) for word, target in pairs)
    return leads or any(word == "--comment" and text.startswith("cilium") for word, text in pairs)


def links(names: list[str]) -> list[str]:
    """Which of the machine's links are theirs."""
    return sorted(name for name in names if LINKS.match(name))


def mounts(table: str, folders: list[str]) -> list[str]:
    """Mount points strictly below the folders, and those of containers' network namespaces; what lies deepest first.

    ``table`` is /proc/self/mounts. A folder that is a mount point itself, such as a disk of its own, is not named.
    """
    points = [line.split()[1].replace("\\040", " ") for line in table.splitlines() if line.strip()]
    below = tuple(f"{folder.rstrip('/')}/" for folder in folders)
    return list(reversed([point for point in points if point.startswith((*below, "/run/netns/cni-"))]))


def processes(table: list[dict[str, Any]], data_path: str) -> list[int]:
    """Pids of containers' shims and what runs under them, and of programs in k3s' data folder.

    ``table``: pid, ppid, exe and cmdline of each process, arguments with a space in between.
    """
    programs = f"{data_path.rstrip('/')}/data/"
    roots = {
        one["pid"]
        for one in table
        if one["exe"].startswith(programs)
        or one["cmdline"].startswith(programs)
        or ("containerd-shim" in one["cmdline"] and SOCKET in one["cmdline"])
    }
    found = set(roots)
    while more := {one["pid"] for one in table if one["ppid"] in found} - found:
        found |= more
    return sorted(found)


def filters(shown: str) -> list[tuple[str, str]]:
    """Preference and protocol of the filters that Cilium attached to a link; ``shown`` by ``tc -json filter show``."""
    entries = json.loads(shown or "[]")
    names = [(entry, str((entry.get("options") or {}).get("bpf_name", ""))) for entry in entries]
    found = [entry for entry, name in names if name.startswith(PROGRAMS_OF_CILIUM)]
    return list(dict.fromkeys((str(entry["pref"]), str(entry["protocol"])) for entry in found))


def routing_rules(shown: str) -> list[list[str]]:
    """Arguments of ``ip rule`` that put rules back as they were; ``shown`` by ``ip -json rule show``.

    Cilium moves the rule for the table ``local`` from 0 to 100. The new one is made before the old one goes: without
    either, the machine does not know its own addresses.
    """
    rules = json.loads(shown or "[]")
    commands = [
        ["delete", "priority", str(rule["priority"]), "table", str(rule["table"])]
        for rule in rules
        if str(rule.get("table")) in TABLES_OF_CILIUM
    ]
    moved = any(rule["priority"] == 100 and rule.get("table") == "local" for rule in rules)
    if moved and not any(rule["priority"] == 0 for rule in rules):
        commands.append(["add", "from", "all", "table", "local", "priority", "0"])
    if moved:
        commands.append(["delete", "priority", "100", "table", "local"])
    return commands
