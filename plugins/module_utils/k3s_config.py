# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The config.yaml of a node: what the collection needs, with what the user wants beside it.

``inputs`` are the variables of role k3s as one host has them, without their prefix. Source: k3s docs, "Server" and
"Agent" of the command line reference, whose flags are the keys of config.yaml.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.k3s_facts import TOKEN

Item = dict[str, Any]

DATA_PATH = "/var/lib/rancher/k3s"
API_PORT = 6443
TOKEN_FILE = f"/{TOKEN}"

OWNED = {
    "agent-token-file": "k3s_token",
    "cluster-cidr": "k3s_cluster_cidr",
    "cluster-init": "k3s_datastore",
    "data-dir": "k3s_data_path",
    "node-external-ip": "k3s_node_external_ip",
    "node-ip": "k3s_node_ip",
    "node-name": "k3s_node_name",
    "server": "k3s_api_address",
    "service-cidr": "k3s_service_cidr",
    "token": "k3s_token",
    "token-file": "k3s_token",
}
"""Keys that have a variable of their own."""

FIXED = {
    "https-listen-port": "Cilium and this role reach the API server by k3s' own port",
    "lb-server-port": "Cilium reaches the API server by k3s' own load balancer at 127.0.0.1:6444",
    "cluster-reset": "k3s would do it again at every start; run it by hand once",
    "cluster-reset-restore-path": "k3s would do it again at every start; run it by hand once",
    "disable-agent": "a server without an agent is no node, and this role waits for nodes",
    "disable-etcd": "this role waits until every server is a voter of etcd",
    "disable-apiserver": "this role asks every server's API server",
    "rootless": "this role installs units of the system",
}
"""Keys that would break the order in which this collection brings a cluster up, and why."""

NETWORKS: dict[str, Item] = {
    "cilium": {"flannel-backend": "none", "disable-network-policy": True, "disable-kube-proxy": True},
    "flannel": {},
    "none": {"flannel-backend": "none", "disable-network-policy": True},
}
"""What ``k3s_network`` asks of servers; agents read it from there."""

ALIKE = (
    "cluster-dns",
    "cluster-domain",
    "disable-cloud-controller",
    "disable-helm-controller",
    "egress-selector-mode",
    "embedded-registry",
    "flannel-backend",
    "flannel-ipv6-masq",
    "secrets-encryption",
)
"""Keys that k3s wants to be the same on every server."""

SECRET = (
    "agent-token",
    "datastore-endpoint",
    "etcd-s3-access-key",
    "etcd-s3-secret-key",
    "etcd-s3-session-token",
    "vpn-auth",
)
"""Keys whose values are shown to nobody."""

_LISTS = ("disable", "node-label", "node-taint", "tls-san")
_LABELS_OF_KUBELETS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_WELL_KNOWN = (
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
)


def node_config(kind: str, inputs: Item, joins: Item) -> Item:
    """The whole config.yaml. ``joins``: the keys by which the node finds its cluster."""
    own: Item = {}
    if inputs["data_path"] != DATA_PATH:
        own["data-dir"] = inputs["data_path"]
    own |= {
        key: inputs[name]
        for key, name in (("node-name", "node_name"), ("node-ip", "node_ip"), ("node-external-ip", "node_external_ip"))
        if inputs[name]
    }
    labels = [f"{key}={value}" for key, value in sorted(inputs["node_labels"].items()) if kubelet_may_set(key)]
    own |= {"node-label": labels, "node-taint": list(inputs["node_taints"])}
    if kind == "server":
        own |= {"cluster-cidr": comma(inputs["cluster_cidr"]), "service-cidr": comma(inputs["service_cidr"])}
        own |= {"tls-san": inputs["tls_san"], "disable": list(inputs["disable"])}
        own |= NETWORKS[inputs["network"]]
    given = inputs[f"{kind}_config"]
    merged = {**given, **own, **joins}
    merged |= {key: _united(own.get(key), given.get(key)) for key in _LISTS if key in own or key in given}
    return {key: merged[key] for key in sorted(merged) if merged[key] not in ([], "")}


def refused(kind: str, inputs: Item) -> Iterator[str]:
    """What the user's config says that cannot be, as ``k3s_server_config.key: value: why; remedy``."""
    variable = f"k3s_{kind}_config"
    needed = NETWORKS[inputs["network"]] if kind == "server" else {}
    for name, value in inputs[f"{kind}_config"].items():
        key, where = name.rstrip("+"), f"{variable}.{name}"
        if key in OWNED:
            yield f"{where}: has a variable of its own; set {OWNED[key]} instead"
        elif key in FIXED:
            yield f"{where}: {value!r}: cannot be set, because {FIXED[key]}; remove it"
        elif key in needed and value != needed[key]:
            yield (
                f"{where}: {value!r}: k3s_network: {inputs['network']} needs {str(needed[key]).lower()} here;"
                f" remove it, or choose another k3s_network ({', '.join(sorted({*NETWORKS} - {inputs['network']}))})"
            )
        elif name != key:
            yield f"{where}: lists are added to anyway; write {key}"


def kubelet_may_set(label: str) -> bool:
    """Whether a kubelet may give its node a label; others are set by the API server."""
    prefix = label.rpartition("/")[0]
    if not (prefix.endswith(("kubernetes.io", "k8s.io"))) or label in _WELL_KNOWN:
        return True
    return prefix.endswith(_LABELS_OF_KUBELETS)


def environment(inputs: Item, more: list[str]) -> dict[str, str]:
    """Proxy settings of k3s and containerd; ``NO_PROXY`` with what is never behind a proxy, and ``more``."""
    given = {"HTTP_PROXY": inputs["http_proxy"], "HTTPS_PROXY": inputs["https_proxy"]}
    found = {name: value for name, value in given.items() if value}
    if not found:
        return {}
    direct = [
        *listed(inputs["no_proxy"]),
        *("127.0.0.0/8", "::1", "localhost", ".svc", ".cluster.local"),
        *listed(inputs["cluster_cidr"]),
        *listed(inputs["service_cidr"]),
        *more,
    ]
    return {**found, "NO_PROXY": ",".join(dict.fromkeys(direct))}


def listed(value: Any) -> list[str]:
    """A list, or text with commas, as a list."""
    parts = value.split(",") if isinstance(value, str) else value or []
    return [str(part).strip() for part in parts if str(part).strip()]


def comma(value: Any) -> str:
    return ",".join(listed(value))


def url(address: str) -> str:
    """Where an API server at an address answers."""
    return f"https://{bracketed(address)}:{API_PORT}"


def bracketed(address: str) -> str:
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:  # a name
        return address
    return f"[{address}]" if version == 6 else address


def _united(own: Any, given: Any) -> list[Any]:
    """What stands in both, each once."""
    both = [*(own or []), *(given if isinstance(given, list) else listed(given))]
    return list(dict.fromkeys(both))
