# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The schema of an edge, from a caller to a service: how replicas are found and chosen, and what a request is told.

EDGE belongs to the cluster of the called service, POLICY to a route. See schema_fields for the shape of a field.
"""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import (
    COUNT,
    PERCENT,
    STATUS,
    Field,
    Fields,
    patch,
)

DISCOVERIES = ("dns", "static", "eds")
LB_POLICIES = ("round_robin", "least_request", "random", "ring_hash", "maglev")
HASHING_POLICIES = ("ring_hash", "maglev")
SLOW_STARTING_POLICIES = ("round_robin", "least_request")
STATUS_CONDITION = "retriable-status-codes"
RETRY_CONDITIONS = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    STATUS_CONDITION,
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)

HEALTH_CHECK: Field = {
    "type": "dict",
    "shorthand": "type",
    "description": "Active health checks: by every caller of the service, and by its own sidecar.",
    "example": {"type": "grpc", "interval": "10s"},
    "fields": {
        "type": {
            "type": "str",
            "choices": ("http", "grpc", "tcp"),
            "description": "What is asked. By default it follows the service's protocol.",
        },
        "path": {
            "type": "str",
            "pattern": "path",
            "default": "/healthz",
            "description": "Path asked with O(type=http); it reaches the application.",
        },
        "grpc_service": {
            "type": "str",
            "default": "",
            "description": "Service name in the question with O(type=grpc); empty asks for the server as a whole.",
        },
        "interval": {
            "type": "duration",
            "minimum": 0.001,
            "default": "10s",
            "description": "Time between two questions to one replica.",
        },
        "unhealthy_interval": {
            "type": "duration",
            "minimum": 0.001,
            "default": "2s",
            "description": "Time between two questions to a replica that is not healthy.",
        },
        "timeout": {
            "type": "duration",
            "minimum": 0.001,
            "default": "1s",
            "description": "Time after which a question has failed.",
        },
        "healthy_threshold": {
            **COUNT,
            "default": 2,
            "description": "Answers in a row that make a replica healthy.",
        },
        "unhealthy_threshold": {
            **COUNT,
            "default": 2,
            "description": "Failures in a row that make a replica unhealthy.",
        },
    },
}

HASH_ON: Field = {
    "type": "dict",
    "description": "What O(lb_policy=ring_hash) and O(lb_policy=maglev) hash: exactly one of these.",
    "example": {"header": "x-user"},
    "fields": {
        "header": {"type": "str", "pattern": "header", "description": "The value of a request header."},
        "cookie": {"type": "str", "pattern": "header", "description": "A cookie; Envoy sets it where it is missing."},
        "source_ip": {"type": "bool", "description": "The caller's address."},
    },
}

CONNECTION: Field = {
    "type": "dict",
    "description": "The connections to each replica.",
    "example": {"max_requests": 1000, "tcp_keepalive": "30s"},
    "fields": {
        "idle_timeout": {
            "type": "duration",
            "description": "Time after which an unused connection is closed; V(1h) if not given.",
        },
        "max_duration": {
            "type": "duration",
            "description": "Age at which a connection takes no more requests and is closed after the last one.",
        },
        "max_requests": {**COUNT, "description": "Number of requests after which a connection is replaced."},
        "tcp_keepalive": {
            "type": "dict",
            "shorthand": "time",
            "description": "Probes on connections without traffic, in whole seconds.",
            "fields": {
                "time": {
                    "type": "duration",
                    "minimum": 1,
                    "maximum": 32767,
                    "default": "30s",
                    "description": "Idle time before the first probe.",
                },
                "interval": {
                    "type": "duration",
                    "minimum": 1,
                    "maximum": 32767,
                    "default": "10s",
                    "description": "Time between two probes.",
                },
                "probes": {
                    **COUNT,
                    "maximum": 127,
                    "default": 3,
                    "description": "Unanswered probes after which it is dead.",
                },
            },
        },
        "tcp_user_timeout": {
            "type": "duration",
            "minimum": 0.001,
            "maximum": 2_000_000,
            "description": (
                "Time for which sent bytes may stay unacknowledged until the connection is dead (TCP_USER_TIMEOUT of "
                "Linux, which else gives up after about 15 minutes)."
            ),
        },
    },
}

CIRCUIT_BREAKERS: Field = {
    "type": "dict",
    "shorthand": "max_requests",
    "description": (
        "Limits of what one proxy has under way to a service at once. What is beyond is answered with 503 at once, and "
        "the header C(x-envoy-overloaded)."
    ),
    "example": {"max_requests": 200, "max_pending_requests": 50},
    "fields": {
        "max_connections": {**COUNT, "default": 1024, "description": "Connections to all replicas."},
        "max_pending_requests": {**COUNT, "default": 1024, "description": "Requests that wait for a connection."},
        "max_requests": {**COUNT, "default": 1024, "description": "Requests under way."},
        "max_retries": {**COUNT, "description": "Retries under way, in place of O(retry_budget)."},
        "retry_budget": {
            "type": "dict",
            "shorthand": "percent",
            "description": (
                "Retries under way as a share of the requests under way. With neither this nor O(max_retries) half of "
                "them, and V(100) at any load."
            ),
            "fields": {
                "percent": {**PERCENT, "default": 20, "description": "The share in percent."},
                "min_concurrency": {**COUNT, "default": 3, "description": "Retries that are allowed at any load."},
            },
        },
    },
}

OUTLIER_DETECTION: Field = {
    "type": "toggle",
    "description": (
        "Takes a replica out of use for a while when requests to it fail. V(true) on an edge that is idempotent, else "
        "V(false)."
    ),
    "example": {"consecutive_5xx": 5, "base_ejection_time": "30s"},
    "fields": {
        "consecutive_local_origin_failure": {
            **COUNT,
            "default": 2,
            "description": "Connections in a row that failed, broke or timed out.",
        },
        "consecutive_gateway_failure": {
            **COUNT,
            "default": 5,
            "description": "Answers 502, 503 or 504 in a row.",
        },
        "consecutive_5xx": {
            **COUNT,
            "description": "Answers 5xx in a row, those of the application too; off by default.",
        },
        "success_rate": {
            "type": "toggle",
            "default": False,
            "description": "Replicas whose share of good answers is far below the others'.",
            "fields": {
                "stdev_factor": {
                    "type": "number",
                    "minimum": 0.1,
                    "maximum": 100,
                    "default": 1.9,
                    "description": "How many standard deviations below the mean is too far.",
                },
                "minimum_hosts": {**COUNT, "default": 5, "description": "Replicas that must have had enough requests."},
                "request_volume": {**COUNT, "default": 100, "description": "Requests in one interval that are enough."},
            },
        },
        "failure_percentage": {
            "type": "toggle",
            "default": False,
            "description": "Replicas whose share of bad answers is above a threshold.",
            "fields": {
                "threshold": {
                    "type": "int",
                    "minimum": 1,
                    "maximum": 100,
                    "default": 85,
                    "description": "The share in percent.",
                },
                "minimum_hosts": {**COUNT, "default": 5, "description": "Replicas that must have had enough requests."},
                "request_volume": {**COUNT, "default": 50, "description": "Requests in one interval that are enough."},
            },
        },
        "errors": {
            "type": "list",
            "items": {"type": "int", "minimum": 400, "maximum": 499},
            "default": [],
            "description": "Statuses that count as errors like 5xx, such as 429.",
            "example": [429],
        },
        "interval": {
            "type": "duration",
            "minimum": 0.001,
            "default": "1s",
            "description": "Time between two looks at shares and at who may return.",
        },
        "base_ejection_time": {
            "type": "duration",
            "minimum": 0.001,
            "default": "10s",
            "description": "Time out of use, times the number of times in a row.",
        },
        "max_ejection_time": {
            "type": "duration",
            "minimum": 0.001,
            "default": "300s",
            "description": "The longest time out of use.",
        },
        "max_ejection_percent": {
            "type": "int",
            "minimum": 0,
            "maximum": 100,
            "default": 50,
            "description": "The largest share of the replicas that is out of use, in percent.",
        },
    },
}

EDGE: Fields = {
    "discovery": {
        "type": "str",
        "choices": DISCOVERIES,
        "description": (
            "How a caller finds the replicas. V(dns) asks for the headless Service, V(static) writes the addresses "
            "into the cluster, V(eds) into a file of their own, which Envoy re-reads."
        ),
    },
    "lb_policy": {"type": "str", "choices": LB_POLICIES, "description": "How a caller chooses among the replicas."},
    "hash_on": HASH_ON,
    "connect_timeout": {
        "type": "duration",
        "minimum": 0.001,
        "description": "Time for a new connection. V(1s), or V(250ms) on an edge that is idempotent.",
    },
    "health_check": HEALTH_CHECK,
    "connection": CONNECTION,
    "circuit_breakers": CIRCUIT_BREAKERS,
    "outlier_detection": OUTLIER_DETECTION,
    "panic_threshold": {
        "type": "int",
        "minimum": 0,
        "maximum": 100,
        "description": (
            "Share of usable replicas, in percent, below which requests go to all of them again; V(0) never does. "
            "V(50) if not given. Where 72 percent are usable they never do, so more than V(71) is like V(71)."
        ),
    },
    "slow_start": {
        "type": "dict",
        "shorthand": "window",
        "description": "A new replica gets its share of requests bit by bit.",
        "fields": {
            "window": {
                "type": "duration",
                "minimum": 0.001,
                "required": True,
                "description": "Time until it has its whole share.",
            },
            "aggression": {
                "type": "number",
                "minimum": 0.1,
                "maximum": 100,
                "default": 1,
                "description": "V(1) rises in a line, more rises faster at first.",
            },
            "min_weight_percent": {**PERCENT, "default": 10, "description": "Its share at the start, in percent."},
        },
    },
    "zone_aware": {
        "type": "toggle",
        "description": (
            "Prefers replicas in the caller's own zone as long as they can take their part. Needs the zones of "
            "replicas: O(discovery=static) or O(discovery=eds)."
        ),
        "fields": {
            "min_replicas": {
                **COUNT,
                "default": 2,
                "description": "With fewer replicas than these, zones do not matter.",
            },
        },
    },
}

MATCH: Fields = {
    "prefix": {"type": "str", "pattern": "path", "description": "Paths that start with this."},
    "path": {"type": "str", "pattern": "path", "description": "This path exactly."},
    "regex": {"type": "str", "description": "Paths that match this regular expression (RE2) as a whole."},
    "grpc": {
        "type": "str",
        "pattern": "grpc",
        "example": "api.Echo",
        "description": "gRPC calls of a service (V(package.Service)) or of one method (V(package.Service/Method)).",
    },
    "headers": {
        "type": "list",
        "description": "Headers that must match too.",
        "items": {
            "type": "dict",
            "fields": {
                "name": {"type": "str", "pattern": "header", "required": True, "description": "The header's name."},
                "exact": {"type": "str", "description": "Its whole value."},
                "prefix": {"type": "str", "pattern": "line", "description": "The start of its value."},
                "regex": {"type": "str", "description": "A regular expression (RE2) for its whole value."},
                "present": {"type": "bool", "description": "That it is there (V(true)) or is not (V(false))."},
            },
        },
    },
}
PATHS = ("prefix", "path", "regex", "grpc")
HEADER_TESTS = ("exact", "prefix", "regex", "present")

RETRIES: Field = {
    "type": "dict",
    "shorthand": "count",
    "description": "Retries of a failed request on another replica; V(0) turns them off.",
    "example": {"count": 2, "per_try_timeout": "1s"},
    "fields": {
        "count": {
            "type": "int",
            "minimum": 0,
            "maximum": 100,
            "description": "Tries after the first. V(2), or V(4) on an edge that is idempotent.",
        },
        "on": {
            "type": "list",
            "items": {"type": "str", "choices": RETRY_CONDITIONS},
            "description": (
                "Conditions, by Envoy's names. By default those that are safe for any request: V(connect-failure), "
                "V(refused-stream), V(reset-before-request); on an idempotent edge also V(reset) and V(gateway-error), "
                "and V(unavailable) of gRPC."
            ),
        },
        "statuses": {
            "type": "list",
            "items": {"type": "int", "minimum": 400, "maximum": 599},
            "description": "Statuses that are retried too, such as 409.",
        },
        "per_try_timeout": {
            "type": "duration",
            "description": "Time for one try. None, or V(1s) on an edge that is idempotent.",
        },
        "per_try_idle_timeout": {
            "type": "duration",
            "description": "Time for which one try may stay silent.",
        },
        "backoff": {
            "type": "dict",
            "shorthand": "base",
            "description": "Time between two tries: random, up to O(retries.backoff.base) times 2, 4, 8 ….",
            "fields": {
                "base": {"type": "duration", "minimum": 0.001, "default": "25ms", "description": "Where it begins."},
                "max": {
                    "type": "duration",
                    "minimum": 0.001,
                    "description": "Its upper bound; ten times the base if not given.",
                },
            },
        },
        "previous_hosts": {
            "type": "bool",
            "default": True,
            "description": "A retry goes to a replica that has not had this request yet, if there is one.",
        },
        "hedge": {
            "type": "bool",
            "default": False,
            "description": (
                "When O(retries.per_try_timeout) is over, the first try goes on beside the second, and the first "
                "answer wins. Only on an edge that is idempotent."
            ),
        },
    },
}

HEADERS: Fields = {
    "set": {
        "type": "map",
        "keys": "plain_header",
        "items": {"type": "str", "pattern": "header_value"},
        "default": {},
        "description": "Headers that get this value, whatever they had.",
        "example": {"x-mesh": "%PROTOCOL%"},
    },
    "add": {
        "type": "map",
        "keys": "plain_header",
        "items": {"type": "str", "pattern": "header_value"},
        "default": {},
        "description": "Headers that get this value beside those they had.",
    },
    "remove": {
        "type": "list",
        "items": {"type": "str", "pattern": "plain_header"},
        "default": [],
        "description": "Headers that are dropped.",
    },
}

MIRROR: Field = {
    "type": "dict",
    "shorthand": "service",
    "description": "Sends a copy of requests to another service too and drops its answers.",
    "example": {"service": "shop-next", "percent": 10},
    "fields": {
        "service": {"type": "str", "required": True, "description": "Name of the service that gets the copies."},
        "percent": {**PERCENT, "default": 100, "description": "The share that is copied."},
    },
}

FAULT: Field = {
    "type": "dict",
    "description": "Makes requests slow or fail on purpose, to see what callers do then.",
    "example": {"delay": {"duration": "2s", "percent": 10}},
    "fields": {
        "delay": {
            "type": "dict",
            "shorthand": "duration",
            "description": "Requests wait before they go on.",
            "fields": {
                "duration": {"type": "duration", "minimum": 0.001, "required": True, "description": "How long."},
                "percent": {**PERCENT, "default": 100, "description": "Share of the requests."},
            },
        },
        "abort": {
            "type": "dict",
            "shorthand": "status",
            "description": "Requests are answered at once. Give a status, or a status of gRPC.",
            "fields": {
                "status": {**STATUS, "description": "HTTP status of the answer."},
                "grpc_status": {
                    "type": "int",
                    "minimum": 0,
                    "maximum": 16,
                    "description": "gRPC status of the answer.",
                },
                "percent": {**PERCENT, "default": 100, "description": "Share of the requests."},
            },
        },
        "headers": {
            "type": "list",
            "items": MATCH["headers"]["items"],
            "default": [],
            "description": "Only requests with these headers.",
        },
    },
}

RATE_LIMIT: Field = {
    "type": "dict",
    "shorthand": "requests",
    "description": (
        "Requests that each proxy lets pass; what is beyond is answered with 429, or RESOURCE_EXHAUSTED for gRPC, and "
        "every answer tells what is left."
    ),
    "example": {"requests": 100, "per": "1s", "burst": 200},
    "fields": {
        "requests": {**COUNT, "required": True, "description": "Requests in each period."},
        "per": {"type": "duration", "minimum": 0.05, "default": "1s", "description": "The period."},
        "burst": {**COUNT, "description": "Requests at once after a pause; O(rate_limit.requests) if not given."},
    },
}

# What a request may be told on its way, by a route of a front proxy or by an upstream of a service.
POLICY: Fields = {
    "timeout": {
        "type": "duration",
        "description": (
            "Time for the whole answer, retries included; V(0) is no limit. V(15s), and no limit but the caller's "
            "own deadline for gRPC."
        ),
    },
    "idle_timeout": {
        "type": "duration",
        "description": (
            "Time for which a request, or a connection of TCP, may stay silent; V(0) is no limit. V(5m) for HTTP, "
            "V(1h) for TCP, no limit for gRPC and websockets."
        ),
    },
    "grpc_timeout_max": {
        "type": "duration",
        "description": (
            "The longest time that a call of gRPC may take, whatever deadline its caller asks for, or none; V(0) is no "
            "limit."
        ),
    },
    "retries": RETRIES,
    "idempotent": {
        "type": "bool",
        "description": (
            "Requests may be repeated after they were sent: retries also on resets, gateway errors and slow tries, and "
            "replicas that fail are taken out of use."
        ),
    },
    "prefix_rewrite": {
        "type": "str",
        "pattern": "path",
        "description": "Replaces the matched prefix or path.",
    },
    "host_rewrite": {"type": "str", "pattern": "header_value", "description": "Replaces the Host header."},
    "request_headers": {"type": "dict", "fields": HEADERS, "description": "Headers of the request on its way."},
    "response_headers": {"type": "dict", "fields": HEADERS, "description": "Headers of the answer on its way back."},
    "mirror": MIRROR,
    "fault": FAULT,
    "rate_limit": RATE_LIMIT,
}

# What of it a front proxy may say for a service, whatever the route.
SERVICE_POLICY = ("timeout", "idle_timeout", "grpc_timeout_max", "retries", "idempotent", "mirror")

# What means something for connections that are not HTTP.
TCP_POLICY = ("idle_timeout", "retries")

ROUTE: Field = {
    "type": "dict",
    "fields": {
        **MATCH,
        "service": {"type": "str", "required": True, "description": "The service that answers."},
        **POLICY,
        "envoy_patch": patch("route"),
    },
}

INGRESS_ROUTE: Field = {
    "type": "dict",
    "fields": {
        **MATCH,
        **{key: POLICY[key] for key in ("request_headers", "response_headers", "fault", "rate_limit")},
        "envoy_patch": patch("route"),
    },
}
