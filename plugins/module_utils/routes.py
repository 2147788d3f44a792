# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Envoy routes: which request goes to which cluster, and what it is told on its way.

Source of the fields: Envoy docs, "HTTP route components (proto)".
"""

from __future__ import annotations

from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import Config, extension, typed
from ansible_collections.sidecar.mesh.plugins.module_utils.requests import UNLIMITED
from ansible_collections.sidecar.mesh.plugins.module_utils.values import merge_patch, present

FAULT = "envoy.filters.http.fault"
RATE_LIMIT = "envoy.filters.http.local_ratelimit"


def route_configurations(proxy: dict[str, Any]) -> list[Config]:
    """One route configuration for each HTTP listener of a proxy that has a file for it, under the listener's name."""
    return [route_configuration(listener) for listener in proxy["listeners"] if has_routes(listener)]


def has_routes(listener: dict[str, Any]) -> bool:
    """Whether a listener has routes that may change."""
    return bool(listener["protocol"] == "http" and listener["direction"] != "metrics")


def route_configuration(listener: dict[str, Any]) -> Config:
    if listener["https_redirect"]:
        redirect = {"match": {"prefix": "/"}, "redirect": {"https_redirect": True}}
        hosts = [{"name": "redirect", "domains": ["*"], "routes": [redirect]}]
    else:
        hosts = [_virtual_host(host) for host in listener["virtual_hosts"]]
    # On any port but 80 and 443 clients name the port in Host too.
    ported = {"ignore_port_in_host_matching": True} if listener["direction"] == "front" else {}
    return {"name": listener["name"], "virtual_hosts": hosts, **ported}


def _virtual_host(host: dict[str, Any]) -> Config:
    base = {"name": host["name"], "domains": host["domains"], "routes": [route(item) for item in host["routes"]]}
    merged: Config = merge_patch(base, host["patch"])
    return merged


def route(item: dict[str, Any]) -> Config:
    """One route of the model as Envoy writes it."""
    match = _match(item["match"])
    if "answer" in item:
        answer = item["answer"]
        return {
            "match": match,
            "direct_response": {"status": answer["status"], "body": {"inline_string": answer["body"]}},
        }
    policy = item["policy"]
    base = {
        "match": match,
        "route": _action(item),
        **_headers("request", policy["request_headers"]),
        **_headers("response", policy["response_headers"]),
        **present({"typed_per_filter_config": {**_fault(policy["fault"]), **_rate_limit(policy["rate_limit"])}}),
    }
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
    hashing = [_hash_policy(hash_on) for hash_on in item["hash_on"]]
    if item["sticky"] and len(hashing) > 1:
        # What callers keep their version by must not depend on what replicas are chosen by.
        hashing[0]["terminal"] = True
    return {
        **_clusters(item),
        "timeout": policy["timeout"],
        **present({"idle_timeout": policy["idle_timeout"]}),
        **_grpc_deadline(policy),
        **_retry_policy(policy["retries"]),
        **present({"hash_policy": hashing}),
        **_mirror(policy["mirror"]),
        **({"upgrade_configs": [{"upgrade_type": "websocket"}]} if item["websocket"] else {}),
        **_rewrites(item, policy),
    }


def _clusters(item: dict[str, Any]) -> Config:
    """Source: Envoy docs, "WeightedCluster"."""
    clusters = item["clusters"]
    if len(clusters) == 1:
        return {"cluster": clusters[0]["name"]}
    weighted = [
        {
            "name": cluster["name"],
            "weight": cluster["weight"],
            **present(
                {"host_rewrite_literal": cluster["host_rewrite"] if not item["policy"]["host_rewrite"] else None}
            ),
            **_version_cookie(item["cookie"], cluster["name"]),
        }
        for cluster in clusters
    ]
    return {"weighted_clusters": {"clusters": weighted, **({"use_hash_policy": True} if item["sticky"] else {})}}


def _version_cookie(name: str | None, version: str) -> Config:
    """Envoy itself sets no cookie for the choice of a cluster."""
    if not name:
        return {}
    header = {"key": "set-cookie", "value": f"{name}={version}; Path=/; HttpOnly"}
    return {"response_headers_to_add": [{"header": header, "append_action": "APPEND_IF_EXISTS_OR_ADD"}]}


def _grpc_deadline(policy: dict[str, Any]) -> Config:
    """The caller's deadline, up to a limit. Source: Envoy docs, "How do I configure timeouts?", gRPC."""
    limit = policy["grpc_timeout_max"]
    if limit:
        # The first is for callers without a deadline.
        return {"max_stream_duration": {"max_stream_duration": limit, "grpc_timeout_header_max": limit}}
    return {"max_stream_duration": {"grpc_timeout_header_max": "0s"}} if policy["grpc_deadline"] else {}


def _rewrites(item: dict[str, Any], policy: dict[str, Any]) -> Config:
    match, rewrite = item["match"], policy["prefix_rewrite"]
    path: Config = {}
    if rewrite and "regex" in match:
        path = {"regex_rewrite": {"pattern": {"regex": match["regex"]}, "substitution": rewrite}}
    elif rewrite:
        path = {"prefix_rewrite": rewrite}
    only = item["clusters"][0]["host_rewrite"] if len(item["clusters"]) == 1 else None
    return {**path, **present({"host_rewrite_literal": policy["host_rewrite"] or only})}


def _retry_policy(retries: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "Router", x-envoy-retry-on, "Host selection retry plugins" and "HedgePolicy"."""
    if not retries:
        return {}
    backoff = retries["backoff"]
    found: Config = {
        "retry_on": ",".join(retries["on"]),
        "num_retries": retries["count"],
        **present(
            {
                "per_try_timeout": retries["per_try_timeout"],
                "per_try_idle_timeout": retries["per_try_idle_timeout"],
                "retriable_status_codes": retries["statuses"],
            }
        ),
    }
    if backoff:
        found["retry_back_off"] = {"base_interval": backoff["base"], **present({"max_interval": backoff["max"]})}
    if retries["previous_hosts"]:
        name, kind = "envoy.retry_host_predicates.previous_hosts", "envoy.extensions.retry.host.previous_hosts.v3"
        found["retry_host_predicate"] = [extension(name, f"{kind}.PreviousHostsPredicate")]
        found["host_selection_retry_max_attempts"] = 5
    hedging: Config = {"hedge_policy": {"hedge_on_per_try_timeout": True}} if retries["hedge"] else {}
    return {"retry_policy": found, **hedging}


def _hash_policy(hash_on: dict[str, Any]) -> Config:
    """Source: Envoy docs, "RouteAction.HashPolicy"."""
    if hash_on["header"]:
        return {"header": {"header_name": hash_on["header"]}}
    if hash_on["cookie"]:
        return {"cookie": {"name": hash_on["cookie"], "ttl": "0s", "path": "/"}}
    return {"connection_properties": {"source_ip": True}}


def _mirror(mirror: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "RouteAction.RequestMirrorPolicy"."""
    if not mirror:
        return {}
    share = {"default_value": fraction(mirror["percent"])}
    return {"request_mirror_policies": [{"cluster": mirror["service"], "runtime_fraction": share}]}


def fraction(percent: float) -> Config:
    """A share as Envoy takes it, exact to a millionth. Source: Envoy docs, "FractionalPercent"."""
    if percent == int(percent):
        return {"numerator": int(percent)}
    return {"numerator": round(percent * 10_000), "denominator": "MILLION"}


def _headers(way: str, headers: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "Header value option"."""
    if not headers:
        return {}
    values = [
        {"header": {"key": name, "value": value}, "append_action": action}
        for kind, action in (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
        for name, value in sorted(headers[kind].items())
    ]
    return present({f"{way}_headers_to_add": values, f"{way}_headers_to_remove": headers["remove"]})


def _fault(fault: dict[str, Any] | None) -> Config:
    """Source: Envoy docs, "Fault injection"."""
    if not fault:
        return {}
    found: Config = {}
    delay, abort = fault["delay"], fault["abort"]
    if delay:
        found["delay"] = {"fixed_delay": delay["duration"], "percentage": fraction(delay["percent"])}
    if abort:
        kind = "http_status" if abort["status"] is not None else "grpc_status"
        status = abort["status"] if abort["status"] is not None else abort["grpc_status"]
        found["abort"] = {kind: status, "percentage": fraction(abort["percent"])}
    headers = [_header(header) for header in fault["headers"]]
    return {FAULT: typed("envoy.extensions.filters.http.fault.v3.HTTPFault", **found, **present({"headers": headers}))}


def _rate_limit(rate_limit: dict[str, Any] | None) -> Config:
    """A route's own limit, or none where the listener has one. Source: Envoy docs, "FilterConfig"."""
    if not rate_limit:
        return {}
    if rate_limit == UNLIMITED:
        return {RATE_LIMIT: typed("envoy.config.route.v3.FilterConfig", disabled=True)}
    return {RATE_LIMIT: local_rate_limit(rate_limit)}


def local_rate_limit(rate_limit: dict[str, Any] | None) -> Config:
    """The filter's configuration for a listener or a route; without a limit it lets all pass.

    Source: Envoy docs, "Local rate limit".
    """
    kind = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
    if not rate_limit:
        return typed(kind, stat_prefix="http_local_rate_limiter")
    requests = rate_limit["requests"]
    always = {"default_value": fraction(100)}
    return typed(
        kind,
        stat_prefix="http_local_rate_limiter",
        token_bucket={
            "max_tokens": rate_limit["burst"] or requests,
            "tokens_per_fill": requests,
            "fill_interval": rate_limit["per"],
        },
        filter_enabled=always,
        filter_enforced=always,
        enable_x_ratelimit_headers="DRAFT_VERSION_03",
        rate_limited_as_resource_exhausted=True,
    )
