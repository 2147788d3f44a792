# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the schema's tables are made of: the shape of a field, patterns, and fields that appear in several places.

A field has ``type``, ``description`` and, where they apply:

* ``default`` (filled in when absent), ``required``
* ``choices``, ``minimum``, ``maximum`` (of a duration in seconds), ``pattern`` (a key of PATTERNS)
* ``fields`` of a dict, ``items`` of a list or of a map's values, ``keys`` (a pattern) of a map
* ``shorthand``: the key that a bare value of a dict stands for (``retries: 2`` is ``retries: {count: 2}``)
* ``example`` for the reference

Types: str, int, number, bool, duration, bytes, dict, list, map (free keys), any, and toggle (a dict, or true/false for
it).
"""

from __future__ import annotations

from typing import Any

Field = dict[str, Any]
Fields = dict[str, Field]

# What Envoy puts in place of %NAME% in a header's value that matter to a mesh.
_OPERATORS = (
    r"DOWNSTREAM_REMOTE_ADDRESS|DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT|DOWNSTREAM_LOCAL_ADDRESS|DOWNSTREAM_TLS_VERSION|"
    r"UPSTREAM_CLUSTER|UPSTREAM_HOST|UPSTREAM_REMOTE_ADDRESS|HOSTNAME|PROTOCOL|RESPONSE_CODE|RESPONSE_FLAGS|START_TIME|"
    r"(REQ|RESP)\(:?[A-Za-z0-9_-]+(\?:?[A-Za-z0-9_-]+)?\)(:[0-9]{1,4})?"
)
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"

# Pattern name: (regular expression, what it allows in words).
PATTERNS: dict[str, tuple[str, str]] = {
    "dns_label": (
        r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        "lower-case letters, digits and '-', starting with a letter, at most 63 characters",
    ),
    "dns_domain": (r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "a DNS domain without a trailing dot"),
    "server_name": (
        r"(\*\.)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*",
        "a lower-case DNS name, or '*.' and one",
    ),
    "host_name": (
        r"([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        "a lower-case DNS name, no IP address",
    ),
    "host_or_ip": (
        rf"([a-z0-9]([-a-z0-9]{{0,61}}[a-z0-9])?\.)*[a-z]([-a-z0-9]{{0,61}}[a-z0-9])?|{_BYTE}(\.{_BYTE}){{3}}",
        "a lower-case DNS name or an IPv4 address",
    ),
    "ip": (r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f.]{0,15}){2,8}", "an IP address"),
    "cidr": (
        r"[0-9]{1,3}(\.[0-9]{1,3}){3}/[0-9]{1,2}|[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f.]{0,15}){2,8}/[0-9]{1,3}",
        "a network such as 10.0.0.0/8",
    ),
    "port": (r"[1-9][0-9]{0,4}", "a port's number"),
    "path": (r"/[^\s\x00-\x1f\x7f]*", "a path starting with '/', without spaces"),
    "line": (r"[^\x00-\x1f\x7f]+", "text on one line, not empty"),
    "grpc": (r"[A-Za-z_][A-Za-z0-9_.]*(/[A-Za-z_][A-Za-z0-9_]*)?", "package.Service or package.Service/Method"),
    "header": (r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "an HTTP header name"),
    "plain_header": (r"[A-Za-z0-9][A-Za-z0-9_.-]*", "a header name of letters, digits, '-', '_' and '.'; not Host"),
    "header_value": (
        rf"([^%\x00-\x1f\x7f]|%%|%({_OPERATORS})%)+",
        (
            "text without line ends, in which %% is a percent sign and %NAME% what Envoy knows, such as "
            "%PROTOCOL% or %REQ(x-user)%"
        ),
    ),
    "log_value": (
        r"([^%\x00-\x1f\x7f]|%%|%[A-Z][A-Z0-9_]*(\([^)\x00-\x1f\x7f]*\))?(:[0-9]{1,4})?%)+",
        (
            "text without line ends, in which %% is a percent sign and %NAME% what Envoy puts there, such as "
            "%DURATION% or %REQ(x-user)%"
        ),
    ),
    "cookie_value": (r"[!#$%&'()*+./:<=>?@\[\]^_`{|}~0-9A-Za-z-]+", "the value of a cookie"),
    "stat": (r"[A-Za-z0-9_.]+", "letters, digits, '_' and '.'"),
    "variable": (r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and '_', not starting with a digit"),
    "zone": (
        r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
        "letters, digits, '-', '_' and '.', at most 63 characters",
    ),
}

IP: Field = {"type": "str", "pattern": "ip"}
PORT: Field = {"type": "int", "minimum": 1, "maximum": 65535}
LARGEST = 4_294_967_295
"""Of whole numbers; Envoy has 32 bits for most of them."""

COUNT: Field = {"type": "int", "minimum": 1, "maximum": LARGEST}
PERCENT: Field = {"type": "number", "minimum": 0, "maximum": 100}
STATUS: Field = {"type": "int", "minimum": 200, "maximum": 599}
ZONE: Field = {"type": "str", "pattern": "zone"}

HTTP_PROTOCOLS = ("http", "http2", "grpc")
PROTOCOLS = (*HTTP_PROTOCOLS, "tcp", "tls")

PATCHES = {
    "cluster": "Merged into the generated cluster.",
    "listener": "Merged into the generated listener.",
    "http_connection_manager": "Merged into the generated HTTP connection manager.",
    "virtual_host": "Merged into the generated virtual host.",
    "route": "Merged into the generated route.",
    "bootstrap": "Merged into the generated bootstrap.",
}


def patch(*levels: str, **descriptions: str) -> Field:
    """The field envoy_patch with some of the levels; a description of its own goes before the level's."""
    texts = {**{level: PATCHES[level] for level in levels}, **descriptions}
    return {
        "type": "dict",
        "description": (
            "JSON merge patch (RFC 7396) for what the model does not name: dicts are merged, null removes, lists are "
            "replaced. The result is validated by Envoy like everything else."
        ),
        "fields": {
            level: {"type": "map", "items": {"type": "any"}, "description": text} for level, text in texts.items()
        },
    }
