# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of one Envoy process, sidecar or front proxy: what it logs, shows, and defends itself with.

See schema_fields for the shape of a field.
"""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import COUNT, PERCENT, PORT, Field, Fields
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_pod import ENVOY_CONTAINER

LOG_FIELDS = {
    "time": "%START_TIME%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "status_details": "%RESPONSE_CODE_DETAILS%",
    "grpc_status": "%GRPC_STATUS%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
    "upstream_ms": "%RESPONSE_DURATION%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "trace_id": "%TRACE_ID%",
    "user_agent": "%REQ(USER-AGENT)%",
    "forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "server_name": "%REQUESTED_SERVER_NAME%",
    "tls_version": "%DOWNSTREAM_TLS_VERSION%",
    "upstream_cluster": "%UPSTREAM_CLUSTER%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
}
"""Fields of an access log and what Envoy puts there. Source: Envoy docs, "Access logging", format strings."""

ACCESS_LOG: Field = {
    "type": "dict",
    "shorthand": "format",
    "default": {},
    "description": "Access log on standard output.",
    "example": {"format": "json", "fields": ["time", "path", "status", "duration_ms"], "sample": 1},
    "fields": {
        "format": {
            "type": "str",
            "choices": ("text", "json", "none"),
            "default": "text",
            "description": "One line of text a request, one JSON object a request, or nothing.",
        },
        "fields": {
            "type": "list",
            "items": {"type": "str", "choices": tuple(LOG_FIELDS)},
            "description": "What is logged, instead of the usual: C(name=value) in text.",
        },
        "extra_fields": {
            "type": "map",
            "keys": "variable",
            "items": {"type": "str", "pattern": "log_value"},
            "default": {},
            "description": "More fields by Envoy's format strings.",
            "example": {"user": "%REQ(X-USER)%"},
        },
        "sample": {
            **PERCENT,
            "default": 100,
            "description": (
                "Share of the requests that is logged, in percent. Errors always are: answers 5xx, failed calls of "
                "gRPC, and all that Envoy has a response flag for; V(0) logs nothing else."
            ),
        },
    },
}

OVERLOAD: Field = {
    "type": "dict",
    "default": {},
    "description": "What Envoy does before it runs out of memory or connections.",
    "fields": {
        "max_heap": {
            "type": "bytes",
            "minimum": 1,
            "default": "1Gi",
            "description": (
                "Memory for Envoy's own heap. At 95 % it gives unused memory back, at 98 % it answers new requests "
                "with 503, probes of O(health_path) too. Below the memory limit of the container."
            ),
        },
        "max_connections": {
            **COUNT,
            "default": 50000,
            "description": "Connections of clients to all listeners; one more is closed at once.",
        },
    },
}

HTTP: Field = {
    "type": "dict",
    "default": {},
    "description": "What every HTTP listener takes from clients. Defaults as Envoy's documentation has them for edges.",
    "fields": {
        "max_request_headers_kb": {
            "type": "int",
            "minimum": 1,
            "maximum": 8192,
            "default": 60,
            "description": "Size of all headers of a request; more is answered with 431.",
        },
        "max_headers": {
            "type": "int",
            "minimum": 1,
            "maximum": 10000,
            "default": 100,
            "description": "Number of headers of a request; more is answered with 431.",
        },
        "header_underscores": {
            "type": "str",
            "choices": ("allow", "reject", "drop"),
            "description": (
                "Headers with an underscore, which some servers cannot tell from those with a dash. V(reject) on front "
                "proxies, V(allow) on sidecars."
            ),
        },
        "escaped_slashes": {
            "type": "str",
            "choices": ("keep", "reject", "unescape", "redirect"),
            "description": (
                "Paths with C(%2F) or C(%5C), which servers read differently. V(redirect) (to the path without) on "
                "front proxies, V(keep) on sidecars."
            ),
        },
        "request_headers_timeout": {
            "type": "duration",
            "default": "10s",
            "description": "Time for all headers of a request; V(0) is no limit.",
        },
        "request_timeout": {
            "type": "duration",
            "description": (
                "Time for a whole request, its body included; V(0) is no limit. V(5m) on front proxies without "
                "services of gRPC or websockets behind them, else V(0)."
            ),
        },
        "stream_idle_timeout": {
            "type": "duration",
            "default": "5m",
            "description": "Time for which a request may stay silent; V(0) is no limit.",
        },
        "idle_timeout": {
            "type": "duration",
            "default": "1h",
            "description": (
                "Time after which a connection without requests is closed, a few seconds later; V(0) is no limit."
            ),
        },
        "max_connection_duration": {
            "type": "duration",
            "minimum": 0.001,
            "description": "Age at which a connection is closed after its last request.",
        },
        "max_concurrent_streams": {
            "type": "int",
            "minimum": 1,
            "maximum": 2147483647,
            "default": 100,
            "description": "Requests at once on one connection of HTTP/2.",
        },
        "trusted_hops": {
            "type": "int",
            "minimum": 0,
            "maximum": 255,
            "default": 0,
            "description": (
                "Proxies in front of a front proxy whose C(x-forwarded-for) is believed, such as a load balancer."
            ),
        },
    },
}

METRICS: Field = {
    "type": "toggle",
    "default": {},
    "description": (
        "A listener for Prometheus: C(/stats/prometheus), C(/config_versions) with the versions of configuration that "
        "Envoy has accepted, and nothing else of its admin interface."
    ),
    "fields": {
        "port": {**PORT, "default": 9902, "description": "Its port."},
    },
}

# What one Envoy process is told, sidecar or front proxy.
ENVOY: Fields = {
    "admin_port": {**PORT, "default": 9901, "description": "Port of Envoy's admin interface, on loopback only."},
    "metrics": METRICS,
    "health_path": {
        "type": "str",
        "pattern": "path",
        "default": "/healthz",
        "description": (
            "Path under which the listener itself answers for probes, when the request has the header "
            "C(x-envoy-livenessprobe: healthz)."
        ),
    },
    "http": HTTP,
    "overload": OVERLOAD,
    "access_log": ACCESS_LOG,
    "log_level": {
        "type": "str",
        "choices": ("trace", "debug", "info", "warning", "error", "critical", "off"),
        "default": "info",
        "description": "Level of Envoy's own log.",
    },
    "log_format": {
        "type": "str",
        "default": "[%Y-%m-%d %T.%e][%t][%l][%n] %v",
        "description": "Format of Envoy's own log (spdlog).",
    },
    "concurrency": {"type": "int", "minimum": 1, "maximum": 1024, "default": 1, "description": "Worker threads."},
    "drain_time": {
        "type": "duration",
        "default": "20s",
        "description": "Time in which connections of a removed listener, or of a stopping Envoy, come to an end.",
    },
    "args": {"type": "list", "items": {"type": "str"}, "default": [], "description": "More arguments for Envoy."},
    **ENVOY_CONTAINER,
}
