"""Network policies of Kubernetes, enforced by nftables in each node's namespace.

All traffic of pods passes the forward hook of their node: their own cables end there. What the node itself sends, such
as a kubelet's probes, does not, and stays allowed, as everywhere. A connection that was allowed lives on.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from cluster.components import AUTHORITY
from cluster.places import API_SERVER, KUBECONFIG, NODES

Object = Mapping[str, Any]
KINDS = ("/api/v1/namespaces", "/api/v1/pods", "/apis/networking.k8s.io/v1/networkpolicies")
TABLE = "inet network_policies"


def main() -> None:
    """Look once a second; give the kernel what has changed."""
    given: dict[str, str] = {}
    token = yaml.safe_load(KUBECONFIG.read_text())["users"][0]["user"]["token"]
    trust = ssl.create_default_context(cafile=str(AUTHORITY))
    while True:
        try:
            namespaces, pods, policies = (_list(path, token, trust) for path in KINDS)
        except OSError as problem:
            print(f"The API server does not answer: {problem}", flush=True)
        else:
            for node in NODES:
                rules = ruleset(node.name, namespaces, pods, policies)
                if rules != given.get(node.name):
                    subprocess.run(node.inside("nft", "--file", "-"), input=rules, text=True, check=True)
                    given[node.name] = rules
        time.sleep(1)


def ruleset(node: str, namespaces: Sequence[Object], pods: Sequence[Object], policies: Sequence[Object]) -> str:
    """What nft reads, for the pods of one node."""
    living = [pod for pod in pods if _has_address(pod)]
    labels = {namespace["metadata"]["name"]: namespace["metadata"].get("labels", {}) for namespace in namespaces}
    jumps, chains = [], []
    for pod in living:
        for direction, field in (("Egress", "saddr"), ("Ingress", "daddr")):
            selecting = [policy for policy in policies if _selects(policy, pod, direction)]
            if pod["spec"].get("nodeName") != node or not selecting:
                continue
            chain = f"{direction.lower()}_{pod['status']['podIP'].replace('.', '_')}"
            jumps.append(f"ip {field} {pod['status']['podIP']} jump {chain}")
            lines = [line for policy in selecting for line in _allowed(policy, direction, pod, living, labels)]
            chains += [f"chain {chain} {{", *sorted(set(lines)), "reject", "}"]
    # Made first, so that there is one to delete.
    start = [f"table {TABLE} {{}}", f"delete table {TABLE}", f"table {TABLE} {{"]
    hook = ["chain forward {", "type filter hook forward priority filter - 10", "ct state established,related accept"]
    return "\n".join([*start, *chains, *hook, *sorted(jumps), "}", "}", ""])


def _allowed(
    policy: Object, direction: str, pod: Object, pods: Sequence[Object], labels: Mapping[str, Object]
) -> Iterator[str]:
    """Rules for what a policy lets through."""
    field, peers = ("saddr", "from") if direction == "Ingress" else ("daddr", "to")
    for rule in policy["spec"].get(direction.lower()) or []:
        ports = rule.get("ports") or []
        if not rule.get(peers):
            # A port's name means one of the pod that is asked; of addresses outside there is none.
            yield from (f"{port} return" for port in _ports(ports, [pod] if direction == "Ingress" else pods))
            continue
        for peer in rule[peers]:
            if block := peer.get("ipBlock"):
                without = f" ip {field} != {{ {', '.join(block['except'])} }}" if block.get("except") else ""
                match = f"ip {field} {block['cidr']}{without}"
                yield from (f"{match} {port} return" for port in _ports(ports, [pod]))
                continue
            for other in pods:
                if _is_peer(other, peer, policy["metadata"]["namespace"], labels):
                    match = f"ip {field} {other['status']['podIP']}"
                    asked = pod if direction == "Ingress" else other
                    yield from (f"{match} {port} return" for port in _ports(ports, [asked]))


def _ports(ports: Sequence[Object], asked: Iterable[Object]) -> Iterator[str]:
    """What matches these ports; all of them if none is named."""
    if not ports:
        yield ""
    for port in ports:
        protocol, wanted = port.get("protocol", "TCP").lower(), port.get("port")
        if wanted is None:
            yield f"meta l4proto {protocol}"
        elif isinstance(wanted, int):
            yield f"{protocol} dport {wanted}-{port.get('endPort', wanted)}"
        else:
            containers = [
                each for pod in asked for kind in ("containers", "initContainers") for each in pod["spec"].get(kind, [])
            ]
            for named in [named for container in containers for named in container.get("ports", [])]:
                if named.get("name") == wanted and named.get("protocol", "TCP").lower() == protocol:
                    yield f"{protocol} dport {named['containerPort']}"


def _selects(policy: Object, pod: Object, direction: str) -> bool:
    same = policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
    return (
        same
        and direction in policy["spec"]["policyTypes"]
        and _matches(policy["spec"].get("podSelector", {}), pod["metadata"].get("labels", {}))
    )


def _is_peer(pod: Object, peer: Object, namespace: str, labels: Mapping[str, Object]) -> bool:
    where = pod["metadata"]["namespace"]
    selector = peer.get("namespaceSelector")
    right_namespace = where == namespace if selector is None else _matches(selector, labels.get(where, {}))
    return right_namespace and _matches(peer.get("podSelector") or {}, pod["metadata"].get("labels", {}))


def _matches(selector: Object, labels: Object) -> bool:
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()) and all(
        _holds(each["operator"], each["key"], each.get("values", []), labels)
        for each in selector.get("matchExpressions", [])
    )


def _holds(operator: str, key: str, values: Sequence[str], labels: Object) -> bool:
    return {
        "In": key in labels and labels[key] in values,
        "NotIn": key not in labels or labels[key] not in values,
        "Exists": key in labels,
        "DoesNotExist": key not in labels,
    }[operator]


def _has_address(pod: Object) -> bool:
    ended = pod["status"].get("phase") in ("Succeeded", "Failed")
    return bool(pod["status"].get("podIP")) and not ended and not pod["spec"].get("hostNetwork")


def _list(path: str, token: str, trust: ssl.SSLContext) -> list[Object]:
    request = urllib.request.Request(API_SERVER + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, context=trust, timeout=10) as answer:
        return list(json.load(answer)["items"])


if __name__ == "__main__":
    main()
