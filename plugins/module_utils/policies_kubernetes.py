# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workload's rules as a NetworkPolicy. Source: Kubernetes docs, "Network Policies".

It knows no DNS names: a service outside is allowed by its port, whatever its address. Traffic between a pod and the
kubelet of its node is always allowed.
"""

from __future__ import annotations

from typing import Any

Item = dict[str, Any]

_ANYWHERE: Item = {"ipBlock": {"cidr": "0.0.0.0/0"}}
_NAMESPACE = "kubernetes.io/metadata.name"


def kubernetes_policy(selector: dict[str, str], rules: Item) -> Item:
    """A policy without metadata."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [made for rule in rules["ingress"] for made in _rule(rule, "from")],
            "egress": [made for rule in rules["egress"] for made in _rule(rule, "to")],
        },
    }


def _rule(rule: Item, direction: str) -> list[Item]:
    protocols = ["UDP", "TCP"] if any("dns" in peer for peer in rule["peers"]) else ["TCP"]
    ports = [{"port": port, "protocol": protocol} for port in rule["ports"] for protocol in protocols]
    allowed = {"ports": ports} if ports else {}
    if any("anyone" in peer for peer in rule["peers"]):
        return [allowed]
    # Who is left out is the kubelet, and the API server where it asks: it has no labels.
    known = {"pods", "cidr", "host", *(["api_server"] if direction == "to" else [])}
    peers = [_peer(peer) for peer in rule["peers"] if peer.keys() & known]
    return [{direction: peers, **allowed}] if peers else []


def _peer(peer: Item) -> Item:
    if "cidr" in peer:
        return {"ipBlock": {"cidr": peer["cidr"]}}
    if "host" in peer or "api_server" in peer:
        return _ANYWHERE
    labels, namespace = peer["pods"], peer["namespace"]
    pods = {"podSelector": {"matchLabels": labels} if labels else {}}
    if namespace == "*":
        return {"namespaceSelector": {}, **pods}
    return {**({"namespaceSelector": {"matchLabels": {_NAMESPACE: namespace}}} if namespace else {}), **pods}
