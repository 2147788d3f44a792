# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A workload's rules as a CiliumNetworkPolicy. Source: Cilium docs, "Layer 3 Policies" and "Layer 4 Policies".

It acts on what leaves and enters a pod, so it sees a sidecar's port. It has no rules for HTTP: those would put Cilium's
own Envoy on the way.
"""

from __future__ import annotations

from typing import Any

Item = dict[str, Any]

_NAMESPACE = "k8s:io.kubernetes.pod.namespace"
_ENTITIES = {
    "anyone": ["all"],
    "kubelet": ["host"],
    # On another node it comes as that node, on the same as the host.
    "api_server": ["host", "kube-apiserver", "remote-node"],
}


def cilium_policy(selector: dict[str, str], rules: Item) -> Item:
    """A policy without metadata."""
    by_name = any("host" in peer for rule in rules["egress"] for peer in rule["peers"])
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "spec": {
            "endpointSelector": {"matchLabels": selector},
            # An empty rule allows nothing; without any, everything would be allowed.
            "ingress": [made for rule in rules["ingress"] for made in _rules(rule, "from", by_name=False)] or [{}],
            "egress": [made for rule in rules["egress"] for made in _rules(rule, "to", by_name=by_name)] or [{}],
        },
    }


def _rules(rule: Item, direction: str, *, by_name: bool) -> list[Item]:
    """One rule for each kind of peer: Cilium takes one kind a rule."""
    kinds: dict[str, list[Any]] = {}
    for peer in rule["peers"]:
        kind, values = _peer(peer)
        kinds.setdefault(kind, []).extend(values)
    dns = any("dns" in peer for peer in rule["peers"])
    ports = {"toPorts": [_ports(rule["ports"], dns=dns, by_name=by_name)]} if rule["ports"] else {}
    return [{f"{direction}{kind}": values, **ports} for kind, values in kinds.items()]


def _peer(peer: Item) -> tuple[str, list[Any]]:
    if "cidr" in peer:
        return "CIDR", [peer["cidr"]]
    if "host" in peer:
        return "FQDNs", [{"matchName": peer["host"]}]
    if "pods" in peer:
        return "Endpoints", [_selector(peer)]
    return "Entities", [entity for key in _ENTITIES if key in peer for entity in _ENTITIES[key]]


def _selector(peer: Item) -> Item:
    labels, namespace = peer["pods"], peer["namespace"]
    if namespace == "*":
        anywhere = [{"key": _NAMESPACE, "operator": "Exists"}]
        return {**({"matchLabels": labels} if labels else {}), "matchExpressions": anywhere}
    return {"matchLabels": {**labels, **({_NAMESPACE: namespace} if namespace else {})}}


def _ports(ports: list[int], *, dns: bool, by_name: bool) -> Item:
    """Answers of DNS are read only where names are allowed: Cilium's DNS proxy is then on the way."""
    protocol = "ANY" if dns else "TCP"
    read = {"rules": {"dns": [{"matchPattern": "*"}]}} if dns and by_name else {}
    return {"ports": [{"port": str(port), "protocol": protocol} for port in ports], **read}
