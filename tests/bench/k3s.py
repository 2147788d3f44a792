"""What it takes to make a cluster of bare nodes, and to find that nothing is to be done: real k3s and Cilium only.

They come from outside, as for part `k3s` of the tests. The floor of the first installation is what one would type: a
config.yaml, k3s' unit, `systemctl start`, `helm install`, and the wait until both nodes are Ready. What is copied there
is on the nodes before, for both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from nodes import fleet as machines
from nodes.places import FLEETS, LIMIT, Fleet, Node
from nodes.site import Site

from bench.measuring import Row, run

GIVEN = ("K3S_BINARY", "K3S_IMAGES", "CILIUM_CHART")
UNIT = f"""\
[Service]
Type=notify
ExecStart=/usr/local/bin/k3s %s
KillMode=process
Delegate=yes
LimitNOFILE={LIMIT}
TimeoutStartSec=0
Restart=always
[Install]
WantedBy=multi-user.target
"""
SERVER = {
    "flannel-backend": "none",
    "disable-network-policy": True,
    "disable-kube-proxy": True,
    "disable": ["traefik", "servicelb", "metrics-server", "local-storage"],
}
CHART = {
    "k8sServiceHost": "127.0.0.1",
    "k8sServicePort": 6444,
    "kubeProxyReplacement": True,
    "ipam": {"operator": {"clusterPoolIPv4PodCIDRList": ["10.42.0.0/16"]}},
    "operator": {"replicas": 1},
}


def rows() -> list[Row]:
    missing = [name for name in GIVEN if name not in os.environ]
    if missing:
        print(f"k3s: skipped, {', '.join(missing)} name no real k3s and Cilium", file=sys.stderr)
        return []
    by_hand = _on_new_nodes(FLEETS["pair"], _by_hand)
    ours = _on_new_nodes(FLEETS["pair"], lambda site: _timed(lambda: site.must_run("k3s")))
    unchanged = _on_new_nodes(FLEETS["ha"], _unchanged)
    return [
        Row(
            "k3s.yml on a bare server and agent, until both are Ready",
            ours,
            "config, start, helm install",
            by_hand,
            1.5,
        ),
        Row("k3s.yml on three servers and an agent, nothing to change", unchanged, "what is allowed", 30, 1),
    ]


def _on_new_nodes(fleet: Fleet, measure: Callable[[Site], float]) -> float:
    machines.down(fleet)
    machines.up(fleet)
    try:
        for node in fleet.nodes:
            _copy(node)
        return measure(Site(fleet, _variables()))
    finally:
        machines.down(fleet)


def _copy(node: Node) -> None:
    machines.on(node, "mkdir", "-p", "/var/lib/rancher/k3s/agent/images", "/etc/rancher/k3s")
    for image in _images():
        run([*machines.PODMAN, "cp", image, f"{node.container}:/var/lib/rancher/k3s/agent/images/"])
    run([*machines.PODMAN, "cp", os.environ["K3S_BINARY"], f"{node.container}:/usr/local/bin/k3s"])


def _images() -> list[Path]:
    folders = os.environ["K3S_IMAGES"].split(":")
    return sorted(path for folder in folders for path in Path(folder).glob("*.tar"))


def _helm() -> str:
    found = os.environ.get("HELM") or shutil.which("helm")
    if not found:
        raise SystemExit("k3s: Helm is not on PATH; name it in HELM")
    return found


def _values() -> dict[str, Any]:
    named = os.environ.get("CILIUM_VALUES")
    return yaml.safe_load(Path(named).read_text()) if named else {}


def _variables() -> dict[str, Any]:
    return {
        "k3s_binary": os.environ["K3S_BINARY"],
        "k3s_airgap_images": list(map(str, _images())),
        "k3s_disable": SERVER["disable"],
        "cilium_chart": os.environ["CILIUM_CHART"],
        "cilium_helm_binary": _helm(),
        "cilium_values": _values(),
    }


def _timed(function: Callable[[], object]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


def _unchanged(site: Site) -> float:
    site.must_run("k3s")
    begun = time.monotonic()
    again = site.must_run("k3s")
    if again.changed:
        raise SystemExit(f"The second run changed {again.changed}")
    seconds = time.monotonic() - begun
    for role, spent in again.seconds_of_roles().items():
        print(f"  of it role {role}: {spent:.1f} s", flush=True)
    return seconds


def _by_hand(site: Site) -> float:
    server, agent = site.fleet.nodes
    kubeconfig, values = site.fleet.folder / "by-hand", site.fleet.folder / "values.json"
    started = time.monotonic()
    _start(server, SERVER | {"node-ip": server.address})
    _until(lambda: machines.on(server, "k3s", "kubectl", "get", "--raw", "/readyz"))
    text = machines.on(server, "cat", "/etc/rancher/k3s/k3s.yaml")
    kubeconfig.write_text(text.replace("127.0.0.1", server.address))
    values.write_text(json.dumps(CHART))
    more = ["--values", os.environ["CILIUM_VALUES"]] if "CILIUM_VALUES" in os.environ else []
    install = [
        _helm(),
        "install",
        "cilium",
        os.environ["CILIUM_CHART"],
        "--namespace",
        "kube-system",
        "--values",
        values,
    ]
    run([*install, *more, "--kubeconfig", kubeconfig])
    token = machines.on(server, "cat", "/var/lib/rancher/k3s/server/node-token").strip()
    _start(agent, {"server": f"https://{server.address}:6443", "token": token, "node-ip": agent.address})
    _until(lambda: _all_ready(machines.on(server, "k3s", "kubectl", "get", "nodes", "--no-headers")))
    return time.monotonic() - started


def _start(node: Node, config: dict[str, Any]) -> None:
    unit = "k3s" if node.kind == "server" else "k3s-agent"
    machines.write(node, "/etc/rancher/k3s/config.yaml", yaml.safe_dump(config))
    machines.write(node, f"/etc/systemd/system/{unit}.service", UNIT % node.kind)
    machines.on(node, "systemctl", "daemon-reload")
    machines.on(node, "systemctl", "start", unit)


def _all_ready(nodes: str) -> bool:
    return len(re.findall(r"^\S+\s+Ready\s", nodes, re.M)) == 2


def _until(probe: Callable[[], object], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if probe():
                return
        except RuntimeError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"Not within {seconds:.0f} s")
