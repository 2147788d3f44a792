# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kubernetes objects of role cilium: addresses for load balancers, and who announces them.

Source: Cilium docs, "LoadBalancer IP Address Management" and "L2 Announcements".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.values import present

Object = dict[str, Any]

POLICY = "sidecar-mesh"


def address_objects(settings: dict[str, Any]) -> list[Object]:
    """Pools and the announcement policy, as settings of check_settings ask for them."""
    pools = [_pool(pool) for pool in settings["lb_pools"]]
    return [*pools, *([_policy(settings["l2"])] if settings["l2"]["enabled"] else [])]


def _pool(pool: Object) -> Object:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLoadBalancerIPPool",
        "metadata": {"name": pool["name"]},
        "spec": present(
            {
                "blocks": [present(block) for block in pool["blocks"]],
                "serviceSelector": _selector(pool["service_selector"]),
            }
        ),
    }


def _policy(l2: Object) -> Object:
    return {
        "apiVersion": "cilium.io/v2alpha1",
        "kind": "CiliumL2AnnouncementPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "loadBalancerIPs": True,
            **present(
                {
                    "interfaces": l2["interfaces"],
                    "nodeSelector": _selector(l2["node_selector"]),
                    "serviceSelector": _selector(l2["service_selector"]),
                }
            ),
        },
    }


def _selector(given: Object) -> Object:
    """Labels, or a selector as Kubernetes has it."""
    if not given or {"matchLabels", "matchExpressions"} & given.keys():
        return given
    return {"matchLabels": given}
