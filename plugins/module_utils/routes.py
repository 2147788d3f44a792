# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy routes: which request goes to which cluster, and what it is told on its way.

Source of the fields: Envoy docs, "HTTP route components (proto)".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, extension
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present


def route_configurations(proxy: dict[str, Any]) -> list[Config]:
    """One route configuration for each HTTP listener of a proxy, under the listener's name."""
    return [route_configuration(listener) for listener in proxy["listeners"] if listener["protocol"] != "tcp"]


def route_configuration(listener: dict[str, Any]) -> Config:
    if listener["https_redirect"]:
        redirect = {"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}
        hosts = [{"name": "redirect", "domains": ["*"], "routes": [redirect]}]
    else:
        hosts = [
            {"name": host["name"], "domains": host["domains"], "routes": [route(item) for item in host["routes"]]}
            for host in listener["virtual_hosts"]
        ]
    # On any port but 80 and 443 clients name the port in Host too.
    ported = {"ignore_port_in_host_matching": True} if listener["direction"] == "front" else {}
    return {"name": listener["name"], "virtual_hosts": hosts, **ported}


def route(item: dict[str, Any]) -> Config:
    """One route of the model as Envoy writes it."""
    base = {"match": _match(item["match"]), "route": _action(item)}
    merged: Config = merge_patch(base, item["envoy_patch"])
    return merged


def _match(match: dict[str, Any]) -> Config:
    path: Config = {key: match[key] for key in ("prefix", "path") if key in match}
    if "regex" in match:
        path = {"safe_regex": {"regex": match["regex"]}}
    grpc: Config = {"grpc": {}} if match["grpc"] else {}
    return {**path, **grpc, **present({"headers": [_header(header) for header in match["headers"]]})}


def _header(header: dict[str, Any]) -> Config:
    if header["present"] is not None:
        return {"name": header["name"], "present_match": header["present"]}
    if header["regex"] is not None:
        return {"name": header["name"], "string_match": {"safe_regex": {"regex": header["regex"]}}}
    test = {key: header[key] for key in ("exact", "prefix") if header[key] is not None}
    return {"name": header["name"], "string_match": test}


def _action(item: dict[str, Any]) -> Config:
    policy = item["policy"]
    return {
        "cluster": item["cluster"],
        "timeout": policy["timeout"],
        **({"max_stream_duration": {"grpc_timeout_header_max": "0s"}} if policy["grpc_deadline"] else {}),
        **_retry_policy(policy["retries"]),
        **_hash_policy(item["hash_on"]),
        **_rewrites(item["match"], policy),
    }


def _rewrites(match: dict[str, Any], policy: dict[str, Any]) -> Config:
    rewrite = policy["prefix_rewrite"]
    path: Config = {}
    if rewrite and "regex" in match:
        path = {"regex_rewrite": {"pattern": {"regex": match["regex"]}, "substitution": rewrite}}
    elif rewrite:
        path = {"prefix_rewrite": rewrite}
    return {**path, **present({"host_rewrite_literal": policy["host_rewrite"]})}


def _retry_policy(retries: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "Router", x-envoy-retry-on, and "Host selection retry plugins"."""
    if not retries or not retries["count"]:
        return {}
    other_host = extension(
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    )
    return {
        "retry_policy": {
            "retry_on": ",".join(retries["on"]),
            "num_retries": retries["count"],
            **present({"per_try_timeout": retries["per_try_timeout"]}),
            "retry_host_predicate": [other_host],
            "host_selection_retry_max_attempts": 5,
        }
    }


def _hash_policy(hash_on: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "RouteAction.HashPolicy"."""
    if not hash_on:
        return {}
    if hash_on["header"]:
        return {"hash_policy": [{"header": {"header_name": hash_on["header"]}}]}
    if hash_on["cookie"]:
        return {"hash_policy": [{"cookie": {"name": hash_on["cookie"], "ttl": "0s"}}]}
    return {"hash_policy": [{"connection_properties": {"source_ip": True}}]}
