# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The certificates that front proxies serve, and the names by which clients ask for them."""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import names

Item = dict[str, Any]


def mesh_certificates(model: Item, in_cluster: bool = True) -> dict[str, list[str]]:
    """``{certificate: [subject alternative names]}``, such as ``DNS:shop.example.com``, sorted.

    The names are those of the front's virtual hosts and, with ``in_cluster`` on Kubernetes, of its Service.
    """
    mesh = model["mesh"]
    found: dict[str, set[str]] = {}
    for front in model["front_proxies"]:
        served = {listener["tls"]["secret"] for listener in front["listeners"] if listener["tls"]}
        hosts = {domain for host in front["virtual_hosts"] for domain in host["domains"] if _is_name(domain)}
        if in_cluster and mesh["engine"] == "kubernetes":
            hosts |= set(names.hosts(front["name"], mesh["namespace"], mesh["domain"]))
        for certificate in served:
            found.setdefault(certificate, set()).update(f"DNS:{host}" for host in hosts)
    return {certificate: sorted(found[certificate]) for certificate in sorted(found)}


def _is_name(domain: str) -> bool:
    """Whether a certificate can be for it: certificates know no port, and no other wildcard than a first label."""
    return domain != "*" and ":" not in domain and "*" not in domain.removeprefix("*.")
