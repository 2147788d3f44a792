"""The command: python -m nodes up|down|status [fleet]."""

from __future__ import annotations

import argparse
import sys

from cluster.commands import Missing

from nodes import fleet
from nodes.places import FLEETS


def main() -> None:
    parser = argparse.ArgumentParser(prog="nodes", description="Bare nodes with systemd and SSH on this machine.")
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("fleet", choices=[*FLEETS, "all"], help="how many nodes of which kind: see places.py")
    arguments = parser.parse_args()
    chosen = [each for name, each in FLEETS.items() if arguments.fleet in (name, "all")]
    try:
        for each in chosen:
            if arguments.command == "up":
                print(f"ansible-playbook -i {fleet.up(each)} ...")
            elif arguments.command == "down":
                fleet.down(each)
            else:
                for node in each.nodes:
                    state = "running" if fleet.running(node) else "not there"
                    print(f"{each.name:8} {node.name:10} {node.address:14} {state}")
    except (Missing, RuntimeError) as problem:
        sys.exit(f"nodes {arguments.command}: {problem}")


if __name__ == "__main__":
    main()
