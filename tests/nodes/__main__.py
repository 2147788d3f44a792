"""The command: python -m nodes up|down|status|kill|start fleet [node]."""

from __future__ import annotations

import argparse
import sys

from cluster.commands import Missing

from nodes import fleet
from nodes.places import FLEETS, Fleet


def main() -> None:
    parser = argparse.ArgumentParser(prog="nodes", description="Bare nodes with systemd and SSH on this machine.")
    parser.add_argument("command", choices=["up", "down", "status", "kill", "start"])
    parser.add_argument("fleet", choices=[*FLEETS, "all"], help="how many nodes of which kind: see places.py")
    parser.add_argument("node", nargs="?", help="one of them, to kill as if its power failed, or to start again")
    arguments = parser.parse_args()
    try:
        for each in FLEETS.values():
            if arguments.fleet in (each.name, "all"):
                _do(arguments.command, each, arguments.node)
    except (Missing, RuntimeError) as problem:
        sys.exit(f"nodes {arguments.command}: {problem}")


def _do(command: str, chosen: Fleet, name: str | None) -> None:
    if command == "up":
        print(f"ansible-playbook -i {fleet.up(chosen)} ...")
    elif command == "down":
        fleet.down(chosen)
    elif command == "status":
        for node in chosen.nodes:
            state = "running" if fleet.running(node) else "not there"
            print(f"{chosen.name:8} {node.name:10} {node.address:14} {state}")
    elif name not in (node.name for node in chosen.nodes):
        raise RuntimeError(f"fleet {chosen.name} has no node {name}")
    else:
        (fleet.kill if command == "kill" else fleet.start)(chosen.node(name))


if __name__ == "__main__":
    main()
