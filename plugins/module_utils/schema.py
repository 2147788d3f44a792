# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's schema as data: every key of a service, an upstream, a front proxy and the mesh.

Checks, defaults and the variable reference all come from these tables. A field has ``type``, ``description`` and, where
they apply:

* ``default`` (filled in when absent), ``required``
* ``choices``, ``minimum``, ``maximum`` (of a duration in seconds), ``pattern`` (a key of PATTERNS)
* ``fields`` of a dict, ``items`` of a list or of a map's values
* ``shorthand``: the key that a bare value of a dict stands for (``retries: 2`` is ``retries: {count: 2}``)
* ``example`` for the reference

Types: str, int, number, bool, duration, dict, list, map (free keys), any, and toggle (a dict, or true/false for it).
"""

from __future__ import annotations

from typing import Any

Field = dict[str, Any]
Fields = dict[str, Field]

# Pattern name: (regular expression, what it allows in words).
PATTERNS: dict[str, tuple[str, str]] = {
    "dns_label": (
        r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        "lower-case letters, digits and '-', starting with a letter, at most 63 characters",
    ),
    "dns_domain": (r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", "a DNS domain without a trailing dot"),
    "ip": (r"[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4}(:[0-9A-Fa-f.]{0,15}){2,8}", "an IP address"),
    "path": (r"/[^\s\x00-\x1f\x7f]*", "a path starting with '/', without spaces"),
    "line": (r"[^\x00-\x1f\x7f]+", "text on one line, not empty"),
    "grpc": (r"[A-Za-z_][\w.]*(/[A-Za-z_]\w*)?", "package.Service or package.Service/Method"),
    "header": (r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "an HTTP header name"),
    "variable": (r"[A-Za-z_][A-Za-z0-9_]*", "letters, digits and '_', not starting with a digit"),
}

IP: Field = {"type": "str", "pattern": "ip"}
PORT: Field = {"type": "int", "minimum": 1, "maximum": 65535}
HTTP_PROTOCOLS = ("http", "http2", "grpc")
PROTOCOLS = (*HTTP_PROTOCOLS, "tcp")
DISCOVERIES = ("dns", "static", "eds")
LB_POLICIES = ("round_robin", "least_request", "random", "ring_hash", "maglev")
HASHING_POLICIES = ("ring_hash", "maglev")
RETRY_CONDITIONS = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
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
            "type": "int",
            "minimum": 1,
            "default": 2,
            "description": "Answers in a row that make a replica healthy.",
        },
        "unhealthy_threshold": {
            "type": "int",
            "minimum": 1,
            "default": 2,
            "description": "Failures in a row that make a replica unhealthy.",
        },
    },
}

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
                "V(refused-stream), V(reset-before-request); on an idempotent edge also V(reset) and V(gateway-error)."
            ),
        },
        "per_try_timeout": {
            "type": "duration",
            "description": "Time for one try. None, or V(1s) on an edge that is idempotent.",
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

PATCH_CLUSTER: Field = {"type": "map", "items": {"type": "any"}, "description": "Merged into the generated cluster."}
PATCH_LISTENER: Field = {"type": "map", "items": {"type": "any"}, "description": "Merged into the generated listener."}
PATCH_HTTP: Field = {
    "type": "map",
    "items": {"type": "any"},
    "description": "Merged into the generated HTTP connection manager.",
}
PATCH_ROUTE: Field = {"type": "map", "items": {"type": "any"}, "description": "Merged into the generated route."}
PATCH_BOOTSTRAP: Field = {
    "type": "map",
    "items": {"type": "any"},
    "description": "Merged into the generated bootstrap.",
}


def _patch(**fields: Field) -> Field:
    return {
        "type": "dict",
        "description": (
            "JSON merge patch (RFC 7396) for what the model does not name: dicts are merged, null removes, lists are "
            "replaced. The result is validated by Envoy like everything else."
        ),
        "fields": fields,
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

# What a request may be told on its way, by a route of a front proxy or by an upstream of a service.
POLICY: Fields = {
    "timeout": {
        "type": "duration",
        "description": (
            "Time for the whole answer, retries included; V(0) is no limit. V(15s), and no limit but the caller's "
            "own deadline for gRPC."
        ),
    },
    "retries": RETRIES,
    "idempotent": {
        "type": "bool",
        "description": "Requests may be repeated after they were sent: retries also on resets and gateway errors.",
    },
    "prefix_rewrite": {
        "type": "str",
        "pattern": "path",
        "description": "Replaces the matched prefix or path.",
    },
    "host_rewrite": {"type": "str", "pattern": "line", "description": "Replaces the Host header."},
}

INGRESS_ROUTE: Field = {
    "type": "dict",
    "fields": {**MATCH, "envoy_patch": _patch(route=PATCH_ROUTE)},
}

ROUTE: Field = {
    "type": "dict",
    "fields": {
        **MATCH,
        "service": {"type": "str", "required": True, "description": "The service that answers."},
        **POLICY,
        "envoy_patch": _patch(route=PATCH_ROUTE),
    },
}

ACCESS_LOG: Field = {
    "type": "dict",
    "shorthand": "format",
    "default": {},
    "description": "Access log on standard output.",
    "fields": {
        "format": {
            "type": "str",
            "choices": ("text", "json", "none"),
            "default": "text",
            "description": "One line of text a request, one JSON object a request, or nothing.",
        },
    },
}

# What one Envoy process is told, sidecar or front proxy.
ENVOY: Fields = {
    "admin_port": {**PORT, "default": 9901, "description": "Port of Envoy's admin interface, on loopback only."},
    "health_path": {
        "type": "str",
        "pattern": "path",
        "default": "/healthz",
        "description": (
            "Path under which the listener itself answers for probes, when the request has the header "
            "C(x-envoy-livenessprobe: healthz)."
        ),
    },
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
}

UPSTREAM: Field = {
    "type": "dict",
    "fields": {
        "service": {"type": "str", "required": True, "description": "Name of the service that is called."},
        "port": {
            **PORT,
            "description": "Port of this upstream's own egress listener (needed with O(egress.mode=per_upstream)).",
        },
        "match": {
            "type": "dict",
            "description": (
                "What selects this upstream with O(egress.mode=shared): hosts, path and headers. By default the "
                "service's names as hosts."
            ),
            "fields": {
                "hosts": {
                    "type": "list",
                    "items": {"type": "str"},
                    "description": "Host names, without a port; V(*) is any.",
                },
                **MATCH,
            },
        },
        **POLICY,
        **EDGE,
        "health_check": HEALTH_CHECK,
        "envoy_patch": _patch(
            cluster=PATCH_CLUSTER,
            listener=PATCH_LISTENER,
            http_connection_manager=PATCH_HTTP,
            route=PATCH_ROUTE,
        ),
    },
}

SIDECAR: Field = {
    "type": "toggle",
    "default": {},
    "description": "The service's Envoy; V(false) for a service without one.",
    "example": {"port": 8786, "admin_port": 8090},
    "fields": {
        "port": {
            **PORT,
            "default": 8786,
            "description": "Port on which callers reach the service, through its sidecar.",
        },
        "routes": {
            "type": "list",
            "items": INGRESS_ROUTE,
            "default": [{"prefix": "/"}],
            "description": "Requests that may pass to the application; all others are answered with 404.",
        },
        **ENVOY,
    },
}

SERVICE: Field = {
    "type": "dict",
    "fields": {
        "name": {"type": "str", "required": True, "pattern": "dns_label", "description": "The service's name."},
        "image": {"type": "str", "description": "Container image of the application (engine V(kubernetes))."},
        "command": {
            "type": "list",
            "items": {"type": "str"},
            "description": (
                "Command of the application, needed by engine V(local). C($(NAME)) stands for an environment "
                "variable, as in Kubernetes."
            ),
        },
        "directory": {
            "type": "str",
            "description": (
                "Working directory of the command (engine V(local)), the mesh's state folder by default. "
                "C($(APPLICATIONS)) stands for the folder of the shipped applications."
            ),
        },
        "environment": {
            "type": "map",
            "items": {"type": "str"},
            "keys": "variable",
            "default": {},
            "description": (
                "Environment of the application. C(PORT), C(BIND_ADDRESS), C(POD_NAME) and, for each upstream, "
                "C(UPSTREAM_<NAME>) (address and port to call it at) are there already and may be used as C($(NAME))."
            ),
            "example": {"UPSTREAMS": "http://$(UPSTREAM_SERVICE_B)"},
        },
        "port": {**PORT, "required": True, "description": "The application's port."},
        "protocol": {
            "type": "str",
            "choices": PROTOCOLS,
            "default": "http",
            "description": "What the application speaks. V(http2) and V(grpc) are HTTP/2 without TLS.",
        },
        "replicas": {"type": "int", "minimum": 0, "maximum": 250, "default": 1, "description": "Number of replicas."},
        "endpoints": {
            "type": "list",
            "items": {
                "type": "dict",
                "fields": {
                    "address": {**IP, "required": True, "description": "IP address."},
                    "port": {**PORT, "description": "Port; the service's port by default."},
                },
            },
            "description": (
                "Addresses of a service that runs elsewhere. It is then only called, never deployed, and needs "
                "O(discovery=static) or O(discovery=eds)."
            ),
        },
        "sidecar": SIDECAR,
        "egress": {
            "type": "dict",
            "shorthand": "mode",
            "default": {},
            "description": "How the application reaches its upstreams through the sidecar.",
            "fields": {
                "mode": {
                    "type": "str",
                    "choices": ("per_upstream", "shared"),
                    "default": "per_upstream",
                    "description": "One listener an upstream, or one for all that routes by host, path or header.",
                },
                "port": {**PORT, "default": 15001, "description": "Port of the shared listener."},
            },
        },
        "upstreams": {
            "type": "list",
            "items": UPSTREAM,
            "default": [],
            "description": (
                "The services this one calls. Discovery, load balancing, connect timeout and health checks are those "
                "of the called service, unless the upstream has its own."
            ),
        },
        "discovery": {**EDGE["discovery"], "default": "dns"},
        "lb_policy": {**EDGE["lb_policy"], "default": "round_robin"},
        "hash_on": HASH_ON,
        "connect_timeout": EDGE["connect_timeout"],
        "health_check": HEALTH_CHECK,
        "envoy_patch": _patch(
            cluster={**PATCH_CLUSTER, "description": "Merged into the cluster of the application in its sidecar."},
            listener=PATCH_LISTENER,
            http_connection_manager=PATCH_HTTP,
            bootstrap=PATCH_BOOTSTRAP,
        ),
    },
}

TLS: Field = {
    "type": "dict",
    "shorthand": "secret",
    "description": "Terminates TLS with the certificate of a Secret (keys C(tls.crt) and C(tls.key)).",
    "fields": {
        "secret": {
            "type": "str",
            "pattern": "dns_label",
            "default": "envoy-certs",
            "description": "Name of the Secret; on engine V(local) of a folder of certificates.",
        },
    },
}

FRONT_LISTENER: Field = {
    "type": "dict",
    "fields": {
        "port": {**PORT, "required": True, "description": "Port on which it listens."},
        "protocol": {
            "type": "str",
            "choices": ("http", "tcp"),
            "default": "http",
            "description": "V(http) accepts HTTP/1.1 and HTTP/2, gRPC included.",
        },
        "service": {"type": "str", "description": "The service behind a listener with O(protocol=tcp)."},
        "tls": TLS,
        "https_redirect": {
            "type": "bool",
            "default": False,
            "description": "Answers every request with a redirect to HTTPS.",
        },
        "envoy_patch": _patch(listener=PATCH_LISTENER, http_connection_manager=PATCH_HTTP),
    },
}

FRONT_PROXY: Field = {
    "type": "dict",
    "fields": {
        "name": {"type": "str", "required": True, "pattern": "dns_label", "description": "The front proxy's name."},
        "replicas": {"type": "int", "minimum": 0, "maximum": 250, "default": 1, "description": "Number of replicas."},
        "listeners": {
            "type": "list",
            "items": FRONT_LISTENER,
            "required": True,
            "description": "Ports on which it accepts requests from outside the mesh.",
        },
        "routes": {
            "type": "list",
            "items": ROUTE,
            "default": [],
            "description": "Routes for every host; the first match wins.",
        },
        "virtual_hosts": {
            "type": "list",
            "default": [],
            "description": "Routes by host name.",
            "items": {
                "type": "dict",
                "fields": {
                    "name": {"type": "str", "required": True, "pattern": "dns_label", "description": "Its name."},
                    "domains": {
                        "type": "list",
                        "items": {"type": "str"},
                        "required": True,
                        "example": ["shop.example.com", "*.shop.example.com"],
                        "description": "Host names.",
                    },
                    "routes": {"type": "list", "items": ROUTE, "required": True, "description": "Its routes."},
                },
            },
        },
        "upstreams": {
            "type": "list",
            "default": [],
            "description": (
                "Settings for services that routes name. What an entry leaves out, and a service without an entry, is "
                "as the service itself says."
            ),
            "items": {
                "type": "dict",
                "fields": {
                    "service": {"type": "str", "required": True, "description": "Name of the service."},
                    **{key: field for key, field in POLICY.items() if key in ("timeout", "retries", "idempotent")},
                    **EDGE,
                    "health_check": HEALTH_CHECK,
                    "envoy_patch": _patch(cluster=PATCH_CLUSTER),
                },
            },
        },
        **ENVOY,
        "envoy_patch": _patch(bootstrap=PATCH_BOOTSTRAP),
    },
}

DNS: Field = {
    "type": "dict",
    "default": {},
    "description": "How Envoy asks for addresses.",
    "fields": {
        "refresh_rate": {
            "type": "duration",
            "minimum": 0.01,
            "default": "5s",
            "description": (
                "Time between two questions. With O(jitter), the longest a new replica waits for its first request."
            ),
        },
        "jitter": {
            "type": "duration",
            "default": "1s",
            "description": "At most this is added to the time between them.",
        },
        "query_timeout": {"type": "duration", "default": "2s", "description": "Time for an answer, in whole seconds."},
        "query_tries": {"type": "int", "minimum": 1, "default": 2, "description": "Tries of one question."},
        "resolvers": {
            "type": "list",
            "items": {
                "type": "dict",
                "fields": {
                    "address": {**IP, "required": True, "description": "IP address of a DNS server."},
                    "port": {**PORT, "default": 53, "description": "Its UDP port."},
                },
            },
            "default": [],
            "description": "DNS servers to ask instead of the system's; engine V(local) sets its own.",
        },
    },
}

MESH: Fields = {
    "name": {"type": "str", "pattern": "dns_label", "default": "mesh", "description": "Name of the mesh."},
    "engine": {
        "type": "str",
        "choices": ("kubernetes", "local"),
        "default": "kubernetes",
        "description": (
            "Where the mesh runs. On V(local) every port below 1024 is raised by 8000: 80 becomes 8080, 443 becomes "
            "8443."
        ),
    },
    "namespace": {
        "type": "str",
        "pattern": "dns_label",
        "default": "default",
        "description": "Namespace of the Kubernetes objects, and in the services' DNS names.",
    },
    "domain": {
        "type": "str",
        "pattern": "dns_domain",
        "default": "cluster.local",
        "description": "The cluster's DNS domain.",
    },
    "config_delivery": {
        "type": "str",
        "choices": ("files", "static"),
        "default": "files",
        "description": (
            "V(files): Envoy watches files of listeners, clusters, routes and endpoints. V(static): all is in the "
            "bootstrap, and a change restarts Envoy."
        ),
    },
    "dns": DNS,
    "resting": {
        "type": "list",
        "items": {"type": "str"},
        "default": [],
        "description": (
            "Replicas on engine V(local) that run and get no requests. Role C(local) sets it while it restarts them."
        ),
    },
    "state_path": {
        "type": "str",
        "default": "",
        "description": "Folder with the mesh's files on engine V(local). Role C(local) sets it.",
    },
}

SECTIONS: dict[str, Field] = {
    "mesh_services": {
        "type": "list",
        "items": SERVICE,
        "default": [],
        "description": (
            "The services of the mesh. Name, port and image (engine V(kubernetes)) or command (engine V(local)) is a "
            "complete service."
        ),
    },
    "mesh_front_proxies": {
        "type": "list",
        "items": FRONT_PROXY,
        "default": [],
        "description": "The proxies through which requests enter the mesh.",
    },
}

CHECKS: Field = {
    "type": "list",
    "default": [],
    "description": "Requests that playbook C(verify) sends, as a user of the mesh would.",
    "items": {
        "type": "dict",
        "fields": {
            "name": {"type": "str", "required": True, "description": "What it proves."},
            "url": {"type": "str", "description": "URL of a GET request; its answer must have status 200."},
            "grpc": {
                "type": "dict",
                "description": "A unary gRPC call in place of O(url).",
                "fields": {
                    "address": {"type": "str", "required": True, "description": "Host and port."},
                    "method": {"type": "str", "required": True, "description": "package.Service/Method"},
                    "proto": {
                        "type": "str",
                        "required": True,
                        "description": "The proto file, absolute or from the folder of the shipped applications.",
                    },
                    "message": {"type": "map", "items": {"type": "any"}, "default": {}, "description": "The request."},
                    "tls": {
                        "type": "bool",
                        "default": True,
                        "description": "Over TLS; the certificate is not checked.",
                    },
                },
            },
            "body": {"type": "str", "description": "Text that the answer must contain."},
            "service": {
                "type": "str",
                "description": "Service whose replicas must all answer, by their header C(hostname).",
            },
            "front": {
                "type": "str",
                "description": "Front proxy that must count all replicas of O(service) as healthy.",
            },
            "passes": {
                "type": "list",
                "items": {"type": "str"},
                "description": "Services and front proxies whose access logs must know the request by its id.",
            },
        },
    },
}
