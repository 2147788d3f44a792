# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values of Cilium's Helm chart, from the settings of role cilium.

Source: Cilium docs, "Helm Reference"; the chart's values.yaml.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import math
from collections.abc import Iterator
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.values import plain, seconds

Values = dict[str, Any]

_ABSENT = object()
_QPS = 10
"""Requests a second that an agent may send; the chart's default."""
_MASK_BITS = 16
"""The operator divides a network into 2^16 parts at most."""


def chart_values(settings: dict[str, Any], installed: str | None) -> Values:
    """What the chart is given: what k3s, sidecars and repeated runs need, then the user's values over it.

    ``settings``: as check_settings returns them; ``installed``: the minor version that was installed first, such as
    ``1.20``, None where that is not known. Dicts are merged, all else replaces; null stays, and has Helm remove the
    chart's own default.
    """
    own: Values = {}
    parts = (_pods, _api, _operator, _hubble, _encryption, _announcements, _restarts)
    for part in parts:
        own = merge(own, part(settings))
    if installed:
        own["upgradeCompatibility"] = installed
    return merge(own, _as_json(plain(settings["values"])))


def _as_json(value: Any) -> Any:
    """As Helm gives it back, so that it compares equal: keys are texts."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key): _as_json(item) for key, item in value.items()}
    return [_as_json(item) for item in value] if isinstance(value, list) else value


def merge(base: Values, over: Values) -> Values:
    """``base`` with ``over`` merged into it, recursively; neither is changed."""
    merged = copy.deepcopy(base)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = (
            merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else copy.deepcopy(value)
        )
    return merged


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """A line for each value that differs, as ``path: before -> after``, in the order of paths."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}, key=str):
            inside = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key, _ABSENT), after.get(key, _ABSENT), inside)
    elif before != after:
        yield f"{path}: {_shown(before)} -> {_shown(after)}"


def _shown(value: Any) -> str:
    return "not set" if value is _ABSENT else json.dumps(value, sort_keys=True)


def replicas_for(nodes: int) -> int:
    """Replicas of the operator: two never share a node."""
    return 1 if nodes <= 1 else 2


def _pods(settings: dict[str, Any]) -> Values:
    found = [ipaddress.ip_network(text) for text in settings["pod_cidr"]]
    four = [network for network in found if network.version == 4]
    six = [network for network in found if network.version == 6]
    pools: Values = {}
    if four:
        pools["clusterPoolIPv4PodCIDRList"] = [str(network) for network in four]
    if six:
        pools["clusterPoolIPv6PodCIDRList"] = [str(network) for network in six]
        pools["clusterPoolIPv6MaskSize"] = min(120, min(network.prefixlen for network in six) + _MASK_BITS)
    return {
        "ipam": {"operator": pools},
        **({"ipv6": {"enabled": True}} if six else {}),
        **({"ipv4": {"enabled": False}} if six and not four else {}),
    }


def _api(settings: dict[str, Any]) -> Values:
    known = {"k8sServiceHost": settings["api_host"], "k8sServicePort": settings["api_port"]}
    return {
        "kubeProxyReplacement": settings["kube_proxy_replacement"],
        # A pod's connection to a Service's address must reach its sidecar as it was sent.
        "socketLB": {"hostNamespaceOnly": True},
        **(known if settings["api_host"] else {}),
    }


def _operator(settings: dict[str, Any]) -> Values:
    tolerations = settings["operator_tolerations"]
    return {
        "operator": {
            "replicas": settings["operator_replicas"] or replicas_for(settings["node_count"]),
            **({"tolerations": tolerations} if tolerations else {}),
        }
    }


def _hubble(settings: dict[str, Any]) -> Values:
    hubble = settings["hubble"]
    if not hubble["enabled"]:
        return {"hubble": {"enabled": False}}
    return {
        "hubble": {
            "enabled": True,
            "relay": {"enabled": hubble["relay"]},
            "ui": {"enabled": hubble["ui"]},
            **({"metrics": {"enabled": hubble["metrics"]}} if hubble["metrics"] else {}),
            # The chart's own default makes new certificates whenever it is rendered.
            "tls": {"auto": {"enabled": True, "method": "cronJob"}},
        }
    }


def _encryption(settings: dict[str, Any]) -> Values:
    return {"encryption": {"enabled": True, "type": "wireguard"}} if settings["wireguard"] else {}


def _announcements(settings: dict[str, Any]) -> Values:
    l2 = settings["l2"]
    if not l2["enabled"]:
        return {}
    # An agent renews the lease of each Service whose address it has once in a retry period.
    qps = _QPS + math.ceil(l2["services"] / seconds(l2["retry_period"]))
    return {
        "l2announcements": {
            "enabled": True,
            "leaseDuration": l2["lease_duration"],
            "leaseRenewDeadline": l2["renew_deadline"],
            "leaseRetryPeriod": l2["retry_period"],
        },
        "k8sClientRateLimit": {"qps": qps, "burst": 2 * qps},
    }


def _restarts(settings: dict[str, Any]) -> Values:
    """What runs takes over a changed configuration only when its pods are made anew."""
    hubble = {"relay": {"rollOutPods": True}, "ui": {"rollOutPods": True}} if settings["hubble"]["enabled"] else {}
    return {
        "rollOutCiliumPods": True,
        "operator": {"rollOutPods": True},
        "envoy": {"rollOutPods": True},
        **({"hubble": hubble} if hubble else {}),
    }
