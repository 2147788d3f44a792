# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory's schema as data: every key of a service, an upstream, a front proxy and the mesh.

Checks, defaults, the variable reference and the JSON Schema all come from these tables. Their parts: schema_fields (the
shape of a field), schema_edge (how a service is called), schema_proxy (what one Envoy is told).
"""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.schema_edge import (
    CIRCUIT_BREAKERS,
    EDGE,
    HASH_ON,
    INGRESS_ROUTE,
    MATCH,
    MIRROR,
    POLICY,
    RATE_LIMIT,
    ROUTE,
    SERVICE_POLICY,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_fields import (
    COUNT,
    IP,
    PERCENT,
    PORT,
    PROTOCOLS,
    ZONE,
    Field,
    Fields,
    patch,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_pod import (
    ALLOW_FROM,
    ALLOW_TO,
    BUILD,
    EXPOSE,
    FRONT_POD,
    IMAGES,
    NETWORK_POLICY,
    POD,
    PROBES,
    kubernetes_patch,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.schema_proxy import ENVOY

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
        "envoy_patch": patch("cluster", "listener", "http_connection_manager", "virtual_host", "route"),
    },
}

ZONES: Field = {
    "type": "list",
    "items": ZONE,
    "default": [],
    "description": (
        "Zones of the replicas on engine V(local), in turn. On Kubernetes a replica's zone is that of its node."
    ),
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
        "rate_limit": {
            **RATE_LIMIT,
            "description": (
                "Requests that the sidecar lets pass, all callers together; what is beyond is answered with 429, or "
                "RESOURCE_EXHAUSTED for gRPC. Health checks pass."
            ),
        },
        "max_connections": {**COUNT, "description": "Connections of callers; one more is closed at once."},
        "circuit_breakers": {
            **CIRCUIT_BREAKERS,
            "description": (
                "Limits of what the application gets at once; what is beyond is answered with 503, and the header "
                "C(x-envoy-overloaded)."
            ),
        },
        **ENVOY,
    },
}

SERVICE: Field = {
    "type": "dict",
    "fields": {
        "name": {"type": "str", "required": True, "pattern": "dns_label", "description": "The service's name."},
        "image": {"type": "str", "description": "Container image of the application (engine V(kubernetes))."},
        "build": BUILD,
        "command": {
            "type": "list",
            "items": {"type": "str"},
            "description": (
                "Command of the application, needed by engine V(local). C($(NAME)) stands for an environment "
                "variable, as in Kubernetes. On engine V(kubernetes) the image's own command runs, or O(pod.command)."
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
            "description": (
                "What the application speaks. V(http2) and V(grpc) are HTTP/2 without TLS, V(tls) is TLS that the "
                "proxies pass on as it is, told apart by the server name that the client asks for (SNI)."
            ),
        },
        "websocket": {
            "type": "bool",
            "default": False,
            "description": "Requests may become websockets, on every way to the application.",
        },
        "replicas": {"type": "int", "minimum": 0, "maximum": 250, "default": 1, "description": "Number of replicas."},
        "endpoints": {
            "type": "list",
            "items": {
                "type": "dict",
                "fields": {
                    "address": {**IP, "required": True, "description": "IP address."},
                    "port": {**PORT, "description": "Port; the service's port by default."},
                    "zone": {**ZONE, "description": "Its zone, for O(zone_aware)."},
                },
            },
            "description": (
                "Addresses of a service that runs elsewhere. It is then only called, never deployed, and needs "
                "O(discovery=static) or O(discovery=eds)."
            ),
        },
        "host": {
            "type": "str",
            "pattern": "host_name",
            "example": "api.example.com",
            "description": (
                "DNS name of a service that runs elsewhere, outside the mesh. It is then only called, never deployed; "
                "requests to it get this name as Host."
            ),
        },
        "tls": {
            "type": "toggle",
            "description": "Callers' proxies speak TLS with a service that runs elsewhere (O(host) or O(endpoints)).",
            "example": {"ca_file": "/etc/ssl/private-ca.crt", "client_certificate": "shop-client"},
            "fields": {
                "server_name": {
                    "type": "str",
                    "pattern": "host_name",
                    "description": (
                        "Name that is asked for (SNI) and that its certificate must have; O(host) if not given."
                    ),
                },
                "ca_file": {
                    "type": "str",
                    "pattern": "path",
                    "description": (
                        "File with the certificate authorities that are believed, on the machine (in the container) of "
                        "the proxy; that of the mesh if not given."
                    ),
                },
                "client_certificate": {
                    "type": "str",
                    "pattern": "dns_label",
                    "description": (
                        "Name of the Secret with the certificate that the proxy shows; on engine V(local) of a folder "
                        "in C(certificates) of the mesh, which is yours to fill."
                    ),
                },
            },
        },
        "server_names": {
            "type": "list",
            "items": {"type": "str", "pattern": "server_name"},
            "description": (
                "Names under which clients of O(protocol=tls) ask for this service; O(host), or the service's DNS "
                "names, if not given."
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
                "envoy_patch": patch("listener", "http_connection_manager"),
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
        **EDGE,
        "discovery": {**EDGE["discovery"], "default": "dns"},
        "lb_policy": {**EDGE["lb_policy"], "default": "round_robin"},
        "versions": {
            "type": "list",
            "description": ("Services that share the calls to this one, which is then a name only and never deployed."),
            "items": {
                "type": "dict",
                "fields": {
                    "service": {"type": "str", "required": True, "description": "Name of the service that answers."},
                    "weight": {
                        "type": "int",
                        "minimum": 0,
                        "maximum": 1_000_000,
                        "default": 0,
                        "description": "Its share of the requests, next to the other weights.",
                    },
                    "headers": {
                        **MATCH["headers"],
                        "description": "All requests with these headers go to it, whatever the weights.",
                    },
                    "cookie": {
                        "type": "dict",
                        "shorthand": "name",
                        "description": "All requests with this cookie go to it, whatever the weights.",
                        "fields": {
                            "name": {
                                "type": "str",
                                "pattern": "plain_header",
                                "required": True,
                                "description": "Name of the cookie.",
                            },
                            "value": {
                                "type": "str",
                                "pattern": "cookie_value",
                                "description": "Its value; any if not given.",
                            },
                        },
                    },
                },
            },
        },
        "sticky": {
            **HASH_ON,
            "description": (
                "Keeps callers with the version that answered first: by exactly one of these. A cookie names the "
                "version and is kept when weights change, until the version's weight is 0; the others are hashed."
            ),
            "example": {"cookie": "version"},
        },
        "mirror": MIRROR,
        "zones": ZONES,
        "probes": PROBES,
        "pod": POD,
        "allow_from": ALLOW_FROM,
        "allow_to": ALLOW_TO,
        "kubernetes_patch": kubernetes_patch(),
        "envoy_patch": patch(
            "listener",
            "http_connection_manager",
            "virtual_host",
            "bootstrap",
            cluster="Merged into the cluster of the application in its sidecar.",
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
            "choices": ("http", "tcp", "tls"),
            "default": "http",
            "description": (
                "V(http) accepts HTTP/1.1 and HTTP/2, gRPC included. V(tls) passes TLS on as it is, to the service "
                "whose name the client asks for (SNI)."
            ),
        },
        "service": {"type": "str", "description": "The service behind a listener with O(protocol=tcp)."},
        "services": {
            "type": "list",
            "items": {"type": "str"},
            "description": "The services behind a listener with O(protocol=tls), told apart by their O(server_names).",
        },
        "tls": TLS,
        "rate_limit": {
            **RATE_LIMIT,
            "description": (
                "Requests that each replica of the front proxy lets pass here, all clients together; what is beyond is "
                "answered with 429."
            ),
        },
        "max_connections": {**COUNT, "description": "Connections of clients; one more is closed at once."},
        "https_redirect": {
            "type": "bool",
            "default": False,
            "description": "Answers every request with a redirect to HTTPS.",
        },
        "envoy_patch": patch("listener", "http_connection_manager"),
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
                    "envoy_patch": patch("virtual_host"),
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
                    **{key: POLICY[key] for key in SERVICE_POLICY},
                    **EDGE,
                    "envoy_patch": patch("cluster"),
                },
            },
        },
        "zones": ZONES,
        **ENVOY,
        "expose": EXPOSE,
        "pod": FRONT_POD,
        "allow_to": ALLOW_TO,
        "kubernetes_patch": kubernetes_patch("container"),
        "envoy_patch": patch("bootstrap"),
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
        "ttl": {
            "type": "duration",
            "default": "30s",
            "description": (
                "Time for which the cluster's DNS keeps records. A pod that is deleted goes on serving until nobody "
                "can have its address any more: O(refresh_rate), O(jitter), this, and a few seconds (engine "
                "V(kubernetes))."
            ),
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
            "description": (
                "DNS servers to ask instead of the system's. On engine V(local) names of the mesh are asked of its own "
                "server all the same."
            ),
        },
    },
}

TRACING: Field = {
    "type": "toggle",
    "default": False,
    "description": "Spans of every HTTP request, sent to a collector by OpenTelemetry's protocol (OTLP).",
    "example": {"host": "otel-collector.observability.svc.cluster.local", "sampling": 5},
    "fields": {
        "host": {
            "type": "str",
            "pattern": "host_or_ip",
            "required": True,
            "description": "The collector's DNS name or IP address.",
        },
        "port": {**PORT, "default": 4317, "description": "Its port; V(4318) is usual for V(http)."},
        "protocol": {
            "type": "str",
            "choices": ("grpc", "http"),
            "default": "grpc",
            "description": "OTLP over gRPC or over HTTP.",
        },
        "sampling": {
            **PERCENT,
            "default": 100,
            "description": (
                "Share of the traces that are begun, in percent. Who is called follows its caller's choice, and a "
                "front proxy its clients'."
            ),
        },
    },
}

STATS: Field = {
    "type": "dict",
    "shorthand": "keep",
    "default": {},
    "description": "Which statistics Envoy keeps; each costs memory in every cluster and listener.",
    "fields": {
        "keep": {
            "type": "str",
            "choices": ("dashboards", "all"),
            "default": "dashboards",
            "description": "V(dashboards): those that dashboards, alerts and this collection read.",
        },
        "also": {
            "type": "list",
            "items": {"type": "str", "pattern": "stat"},
            "default": [],
            "description": "More of them, by their last part, such as V(upstream_cx_length_ms).",
        },
    },
}

CONTROL_PLANE: Field = {
    "type": "dict",
    "default": {},
    "description": "What sends Envoys their configuration with O(config_delivery=ads).",
    "fields": {
        "replicas": {**COUNT, "default": 2, "description": "Replicas on engine V(kubernetes); they share nothing."},
        "port": {**PORT, "default": 18000, "description": "Port for Envoys."},
        "status_port": {
            **PORT,
            "default": 18001,
            "description": "Port for probes, metrics and the state of the Envoys.",
        },
        "image": {
            "type": "str",
            "default": "",
            "description": "Its image on engine V(kubernetes); by default one that role C(images) builds.",
        },
        "cluster_role_binding": {
            "type": "bool",
            "default": True,
            "description": (
                "Bind its service account to ClusterRole C(system:auth-delegator), by which it asks the API server "
                "whose a token is. Without, somebody with more rights has done it."
            ),
        },
        "patience": {
            "type": "duration",
            "default": "10s",
            "description": (
                "How long an Envoy that starts asks for the control plane before it starts from the files of its "
                "ConfigMap instead."
            ),
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
            "Where the mesh runs. On V(local) every port below 1024 of what runs here is raised by 8000: 80 becomes "
            "8080, 443 becomes 8443."
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
        "choices": ("files", "static", "ads"),
        "default": "files",
        "description": (
            "V(files): Envoy watches files of listeners, clusters, routes and endpoints. V(static): all is in the "
            "bootstrap, and a change restarts Envoy. V(ads): a control plane sends it, and endpoints as soon as they "
            "change."
        ),
    },
    "control_plane": CONTROL_PLANE,
    "dns": DNS,
    "tracing": TRACING,
    "stats": STATS,
    **IMAGES,
    "network_policy": NETWORK_POLICY,
    "ca_file": {
        "type": "str",
        "pattern": "path",
        "default": "/etc/ssl/certs/ca-certificates.crt",
        "description": (
            "File with the certificate authorities that are believed where a service has O(tls), on the machine (in "
            "the container) of the proxies."
        ),
    },
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
            "url": {
                "type": "str",
                "description": (
                    "URL of a GET request; its answer must have status 200. Its host may be the name of a front proxy, "
                    "and its port one of that proxy's listeners."
                ),
            },
            "grpc": {
                "type": "dict",
                "description": "A unary gRPC call in place of O(url).",
                "fields": {
                    "address": {
                        "type": "str",
                        "required": True,
                        "description": "Host and port; the host may be the name of a front proxy.",
                    },
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

# Read by the playbooks; nothing of the mesh follows from them.
PLAYBOOKS: Fields = {
    "mesh_hosts": {
        "type": "str",
        "default": "localhost",
        "description": "Pattern of the hosts on which tasks run: the mesh's own on engine V(local).",
    },
    "mesh_kubeconfig": {
        "type": "str",
        "description": (
            "File with the cluster's address and credentials (engine V(kubernetes)); C($K8S_AUTH_KUBECONFIG) or "
            "C(~/.kube/config) if not given."
        ),
    },
    "mesh_context": {
        "type": "str",
        "description": "Context in it (engine V(kubernetes)); the current one if not given.",
    },
    "mesh_certificates_path": {
        "type": "str",
        "description": (
            "Folder in which the mesh's certificate authority and what it signs are kept from run to run (engine "
            "V(kubernetes)); one below C(~/.local/state/sidecar-mesh-certificates) if not given."
        ),
    },
    "mesh_former": {
        "type": "str",
        "choices": ("remove", "keep"),
        "description": (
            "What becomes of the mesh where this inventory ran it before, once name, namespace or engine are others. "
            "Playbook C(mesh) asks."
        ),
    },
}
