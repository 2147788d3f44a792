"""The command: python -m cluster up|down|status|cert-manager."""

from __future__ import annotations

import argparse
import sys

from cluster import cert_manager, supervision
from cluster.commands import Missing
from cluster.lifecycle import down, up


def main() -> None:
    parser = argparse.ArgumentParser(prog="cluster", description="A real Kubernetes of two nodes on this machine.")
    parser.add_argument("command", choices=["up", "down", "status", "cert-manager"])
    command = parser.parse_args().command
    try:
        if command == "up":
            print(f"export KUBECONFIG={up()}")
        elif command == "down":
            down()
        elif command == "cert-manager":
            cert_manager.build()
        else:
            print("\n".join(f"{name:20} {state}" for name, state in supervision.states().items()))
    except (Missing, RuntimeError) as problem:
        sys.exit(f"cluster {command}: {problem}")


if __name__ == "__main__":
    main()
