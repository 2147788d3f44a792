"""What is wrong between the parts of an inventory: every mistake, its exact line, and all of them at once."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.references import front_services, upstream_hosts


def problems_of(inventory: str) -> list[str]:
    """The lines of the one message an inventory causes."""
    data = yaml.safe_load(inventory)
    try:
        build_model(data.get("services"), data.get("fronts"), data.get("settings"))
    except ModelError as error:
        return error.problems
    return []


LOCAL = "settings: {engine: local}\n"
KUBERNETES = "settings: {engine: kubernetes}\n"
TWO = "  - {name: b, port: 8081}\n  - {name: c, port: 8081}\n"
QUEUE = "  - {name: queue, port: 9000, protocol: tcp}\n"
FAR = "  - {name: far, port: 80, discovery: static, endpoints: [{address: 10.0.0.1}]}\n"


def front(text: str) -> str:
    return f"services:\n{TWO}{QUEUE}fronts:\n  - {text}\n"


def upstream(text: str, more: str = "") -> str:
    return f"services:\n  - {{name: a, port: 8080, {more} upstreams: [{text}]}}\n{TWO}{QUEUE}{FAR}"


S, F = "mesh_services", "mesh_front_proxies"
TIMES_SHARED = "upstreams that share a host list the same hosts"
FOUR_PATHS = "give exactly one of prefix, path, regex or grpc"
FOUR_TESTS = "give exactly one of exact, prefix, regex or present"
OR_ENDPOINTS = "(or give endpoints, if it runs elsewhere)"
NEEDS = "needs endpoints of {!r} on engine kubernetes; list them, or use dns"
ELSEWHERE = "a service that runs elsewhere (endpoints) has no sidecar here"
GRPC_HEALTH = "/grpc.health.v1.Health/Check"
REFUSED = "asks for {0}, which the sidecar of {1!r} does not let pass; add {{path: {0}}} to its sidecar.routes"
FIRST = f"{S}[0].upstreams[0]"
NO_DNS = "'dns' has no use for endpoints; give static or eds, or remove the endpoints"

CASES: dict[str, tuple[str, list[str]]] = {
    # names
    "same names": (
        (
            "services: [{name: a, port: 1}, {name: a, port: 1}, {name: b, port: 1}]\n"
            "fronts: [{name: a, listeners: [{port: 1}], routes: [{prefix: /, service: a}]}]"
        ),
        [
            f"{F}[0].name: 'a' is taken by {S}[0].name or {S}[1].name; names are unique in a mesh",
        ],
    ),
    # what an engine runs
    "no image": (
        KUBERNETES + "services: [{name: a, port: 1, command: [x]}]",
        [
            f"{S}[0].image: is missing; mesh_engine kubernetes runs 'a' from it {OR_ENDPOINTS}",
        ],
    ),
    "no command": (
        LOCAL + "services: [{name: a, port: 1, image: x}]",
        [
            f"{S}[0].command: is missing; mesh_engine local runs 'a' from it {OR_ENDPOINTS}",
        ],
    ),
    "neither needed without an engine": ("services: [{name: a, port: 1}]", []),
    "neither needed elsewhere": (KUBERNETES + "services:\n" + FAR, []),
    # services that run elsewhere
    "endpoints by dns": (
        "services: [{name: a, port: 1, endpoints: [{address: 10.0.0.1}]}]",
        [f"{S}[0].discovery: {NO_DNS}"],
    ),
    "endpoints and upstreams": (
        (
            f"services:\n  - {{name: a, port: 1, discovery: eds, endpoints: [{{address: 10.0.0.1}}], "
            f"upstreams: [{{service: b, port: 2}}]}}\n{TWO}"
        ),
        [f"{S}[0].upstreams: a service that runs elsewhere (endpoints) has none here; remove one of the two"],
    ),
    "a caller asks dns for endpoints": (
        upstream("{service: far, port: 2, discovery: dns}"),
        [f"{S}[0].upstreams[0].discovery: {NO_DNS}"],
    ),
    "a front asks dns for endpoints": (
        (
            f"services:\n{FAR}fronts: [{{name: f, listeners: [{{port: 1}}], routes: [{{prefix: /, service: far}}], "
            "upstreams: [{service: far, discovery: dns}]}]"
        ),
        [f"{F}[0].upstreams[0].discovery: {NO_DNS}"],
    ),
    "static and eds without endpoints": (
        (
            f"{KUBERNETES}services:\n  - {{name: a, image: x, port: 1, discovery: static, "
            "upstreams: [{service: b, port: 2, discovery: eds}]}\n  - {name: b, image: x, port: 1}\n"
            "fronts: [{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: b}], "
            "upstreams: [{service: b, discovery: static}]}]"
        ),
        [
            f"{S}[0].discovery: 'static' {NEEDS.format('a')}",
            f"{S}[0].upstreams[0].discovery: 'eds' {NEEDS.format('b')}",
            f"{F}[0].upstreams[0].discovery: 'static' {NEEDS.format('b')}",
        ],
    ),
    "static and eds on the local engine": (
        LOCAL + "services: [{name: a, command: [x], port: 8081, discovery: static}]",
        [],
    ),
    # sidecars
    "upstreams without a sidecar": (
        f"services:\n  - {{name: a, port: 1, sidecar: false, upstreams: [{{service: b, port: 2}}]}}\n{TWO}",
        [f"{S}[0].upstreams: need a sidecar; remove sidecar: false, or the upstreams"],
    ),
    "one port for two": (
        upstream(
            "{service: b, port: 8080}, {service: c, port: 9901}, {service: queue, port: 8786}",
            "sidecar: {admin_port: 8786},",
        ),
        [
            f"{S}[0].sidecar.admin_port: 8786 is already {S}[0].sidecar.port; give another port",
            f"{S}[0].upstreams[0].port: 8080 is already {S}[0].port; give another port",
            f"{S}[0].upstreams[2].port: 8786 is already {S}[0].sidecar.port; give another port",
        ],
    ),
    "the shared listener's port": (
        upstream("{service: b}, {service: c, port: 15001}", "egress: shared,"),
        [f"{S}[0].egress.port: 15001 is already {S}[0].upstreams[1].port; give another port"],
    ),
    "ports that are mapped onto others": (
        LOCAL + "services: [{name: a, command: [x], port: 8080, sidecar: {port: 80}}]",
        [f"{S}[0].sidecar.port: 8080 is already {S}[0].port; give another port"],
    ),
    # upstreams
    "unknown services": (
        (
            f"services:\n  - {{name: a, port: 8080, upstreams: [{{service: d, port: 2}}]}}\n{TWO}"
            "fronts: [{name: f, listeners: [{port: 1}, {port: 2, protocol: tcp, service: e}], "
            "routes: [{prefix: /, service: g}], upstreams: [{service: h}]}]"
        ),
        [
            f"{S}[0].upstreams[0].service: 'd' is not in mesh_services (known: a, b, c)",
            f"{F}[0].listeners[1].service: 'e' is not in mesh_services (known: a, b, c)",
            f"{F}[0].routes[0].service: 'g' is not in mesh_services (known: a, b, c)",
            f"{F}[0].upstreams[0].service: 'h' is not in mesh_services (known: a, b, c)",
        ],
    ),
    "nothing known": (
        "fronts: [{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: a}]}]",
        [f"{F}[0].routes[0].service: 'a' is not in mesh_services (known: none)"],
    ),
    "itself": (
        upstream("{service: a, port: 2}"),
        [f"{S}[0].upstreams[0].service: 'a' names itself; a service is not its own upstream"],
    ),
    "twice": (
        upstream("{service: b, port: 2}, {service: c, port: 3}, {service: b, port: 4}"),
        [f"{S}[0].upstreams[2].service: 'b' appears 2 times; once is enough"],
    ),
    "no port": (
        upstream("{service: b}, {service: queue}"),
        [
            (
                f"{S}[0].upstreams[0].port: is missing; give the port on which the sidecar listens for 'b', "
                "or set egress: shared"
            ),
            f"{S}[0].upstreams[1].port: is missing; give the port on which the sidecar listens for 'queue'",
        ],
    ),
    "no port for tcp beside a shared listener": (
        upstream("{service: b}, {service: queue}", "egress: shared,"),
        [f"{S}[0].upstreams[1].port: is missing; give the port on which the sidecar listens for 'queue'"],
    ),
    "port and match": (
        upstream("{service: b, port: 2, match: {hosts: [x]}}", "egress: shared,"),
        [f"{S}[0].upstreams[0].match: has no use beside port; this upstream has a listener of its own"],
    ),
    "http for tcp": (
        upstream(
            "{service: queue, port: 2, timeout: 1s, retries: 1, idempotent: false, prefix_rewrite: /, host_rewrite: x, "
            "match: {prefix: /}}"
        ),
        [
            f"{S}[0].upstreams[0].match: has no use beside port; this upstream has a listener of its own",
            *(
                f"{S}[0].upstreams[0].{key}: has no meaning for tcp; remove it, or change 'queue' to protocol http"
                for key in ("timeout", "retries", "idempotent", "prefix_rewrite", "host_rewrite", "match")
            ),
        ],
    ),
    "host lists that overlap": (
        upstream("{service: b, match: {hosts: [x, y]}}, {service: c, match: {hosts: [x]}}", "egress: shared,"),
        [f"{S}[0].upstreams[1].match.hosts: 'x' is in a different list of another upstream; {TIMES_SHARED}"],
    ),
    "a host of another service's": (
        upstream("{service: b}, {service: c, match: {hosts: [b.default]}}", "egress: shared,"),
        [f"{S}[0].upstreams[1].match.hosts: 'b.default' is in a different list of another upstream; {TIMES_SHARED}"],
    ),
    "a host twice": (
        upstream("{service: b, match: {hosts: [x, y, x]}}", "egress: shared,"),
        [f"{S}[0].upstreams[0].match.hosts[2]: 'x' appears 2 times; once is enough"],
    ),
    "equal host lists, the first takes all": (
        upstream(
            "{service: b, match: {hosts: [x]}}, {service: c, match: {hosts: [x], prefix: /c}}",
            "egress: shared,",
        ),
        [
            (
                f"{S}[0].upstreams[1]: is never reached; {FIRST} matches all of it; put it before that one, "
                "or give it a match of its own"
            )
        ],
    ),
    "equal host lists, the longer prefix first": (
        upstream(
            "{service: b, match: {hosts: [x], prefix: /b}}, {service: c, match: {hosts: [x]}}",
            "egress: shared,",
        ),
        [],
    ),
    "headers before the rest": (
        upstream(
            "{service: b, match: {headers: [{name: x, exact: b}]}}, {service: c, match: {prefix: /}}",
            "egress: shared,",
        ),
        [],
    ),
    "two paths": (
        upstream("{service: b, match: {prefix: /, regex: x}}", "egress: shared,"),
        [f"{S}[0].upstreams[0].match: has prefix or regex; {FOUR_PATHS}"],
    ),
    # load balancing
    "nothing to hash": (
        (
            f"services:\n  - {{name: a, port: 1, lb_policy: ring_hash}}\n"
            f"  - {{name: d, port: 8080, upstreams: [{{service: b, port: 2, lb_policy: maglev}}]}}\n{TWO}"
            "fronts: [{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: b}], "
            "upstreams: [{service: b, lb_policy: ring_hash}]}]"
        ),
        [
            f"{S}[0].hash_on: is missing; ring_hash needs a header, cookie or source_ip to hash",
            f"{S}[1].upstreams[0].hash_on: is missing; maglev needs a header, cookie or source_ip to hash",
            f"{F}[0].upstreams[0].hash_on: is missing; ring_hash needs a header, cookie or source_ip to hash",
        ],
    ),
    "two things to hash": (
        upstream("{service: b, port: 2, lb_policy: maglev, hash_on: {header: x, source_ip: true}}"),
        [f"{S}[0].upstreams[0].hash_on: give exactly one of header, cookie or source_ip"],
    ),
    "an empty thing to hash": (
        upstream("{service: b, port: 2, hash_on: {source_ip: false}}"),
        [f"{S}[0].upstreams[0].hash_on: give exactly one of header, cookie or source_ip"],
    ),
    "a header of tcp": (
        upstream("{service: queue, port: 2, lb_policy: maglev, hash_on: {header: x}}"),
        [f"{S}[0].upstreams[0].hash_on: tcp has no headers; give source_ip: true"],
    ),
    # health checks
    "health checks that do not fit": (
        (
            "services:\n"
            "  - {name: a, port: 1, health_check: {type: grpc}}\n"
            "  - {name: q, port: 1, protocol: tcp, health_check: {type: http}}\n"
            "  - {name: d, port: 8080, upstreams: [{service: q, port: 2, health_check: {type: grpc}}]}\n"
            "fronts: [{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: a}], "
            "upstreams: [{service: a, health_check: {type: grpc}}]}]"
        ),
        [
            f"{S}[0].health_check.type: 'grpc' needs protocol grpc or http2, and 'a' has http",
            f"{S}[1].health_check.type: 'http' needs an HTTP protocol, and 'q' has tcp; give tcp",
            f"{S}[2].upstreams[0].health_check.type: 'grpc' needs protocol grpc or http2, and 'q' has tcp",
            f"{F}[0].upstreams[0].health_check.type: 'grpc' needs protocol grpc or http2, and 'a' has http",
        ],
    ),
    "health checks that a sidecar refuses": (
        """
services:
  - {name: a, port: 1, sidecar: {routes: [{prefix: /api/}]}, health_check: {path: '/healthz?full'}}
  - {name: g, port: 1, protocol: grpc, sidecar: {routes: [{prefix: /api.Echo/}]}, health_check: {}}
  - {name: d, port: 8080, upstreams: [{service: a, port: 2, health_check: {type: http, path: /alive}}]}
  - {name: h, port: 1, sidecar: {routes: [{prefix: /, headers: [{name: x, exact: y}]}]}, health_check: http}
  - {name: i, port: 1, protocol: grpc, sidecar: {routes: [{grpc: grpc.health.v1.Health/Watch}]}, health_check: {}}
""",
        [
            f"{S}[0].health_check: {REFUSED.format('/healthz', 'a')}",
            f"{S}[1].health_check: {REFUSED.format(GRPC_HEALTH, 'g')}",
            f"{S}[2].upstreams[0].health_check: {REFUSED.format('/alive', 'a')}",
            f"{S}[3].health_check: {REFUSED.format('/healthz', 'h')}",
            f"{S}[4].health_check: {REFUSED.format(GRPC_HEALTH, 'i')}",
        ],
    ),
    "health checks that a sidecar lets pass": (
        """
services:
  - {name: a, port: 1, sidecar: {routes: [{path: /a}, {path: /healthz}]}, health_check: {path: '/healthz?a'}}
  - {name: b, port: 1, sidecar: {routes: [{regex: '/h.*'}]}, health_check: http}
  - {name: c, port: 1, sidecar: {routes: [{path: /x}]}, health_check: tcp}
  - {name: d, port: 1, sidecar: false, health_check: http}
  - {name: e, port: 1, protocol: grpc, sidecar: {routes: [{grpc: grpc.health.v1.Health}]}, health_check: {}}
  - {name: f, port: 1, protocol: grpc, sidecar: {routes: [{grpc: grpc.health.v1.Health/Check}]}, health_check: {}}
  - {name: g, port: 1, protocol: tcp, health_check: {}}
  - {name: h, port: 1, protocol: http2, sidecar: {routes: [{path: /healthz}]}, health_check: {}}
""",
        [],
    ),
    # patches that nothing is generated for
    "patches without effect": (
        (
            "services:\n"
            "  - {name: a, port: 1, sidecar: false, envoy_patch: {cluster: {a: 1}, bootstrap: {a: 1}, listener: {}}}\n"
            "  - {name: e, port: 1, discovery: eds, endpoints: [{address: '::1'}], envoy_patch: {listener: {a: 1}}}\n"
            "  - {name: q, port: 1, protocol: tcp, envoy_patch: {http_connection_manager: {a: 1}, listener: {a: 1}}}\n"
            "  - name: d\n    port: 8080\n    egress: shared\n    upstreams:\n"
            "      - {service: a, envoy_patch: {cluster: {a: 1}, listener: {a: 1}, route: {a: 1}}}\n"
            "      - {service: q, port: 2, envoy_patch: {route: {a: 1}, cluster: {a: 1}}}\n"
            "      - {service: e, port: 3, envoy_patch: {listener: {a: 1}}}\n"
            "fronts:\n  - name: f\n    listeners:\n"
            "      - {port: 1, protocol: tcp, service: q, envoy_patch: {http_connection_manager: {a: 1}}}"
        ),
        [
            f"{S}[0].envoy_patch.cluster: has no effect; the service has no sidecar",
            f"{S}[0].envoy_patch.bootstrap: has no effect; the service has no sidecar",
            f"{S}[1].envoy_patch.listener: has no effect; {ELSEWHERE}",
            f"{S}[2].envoy_patch.http_connection_manager: has no effect; tcp has none",
            (
                f"{S}[3].upstreams[0].envoy_patch.listener: has no effect; the upstream has no listener of its own; "
                "give it a port"
            ),
            f"{S}[3].upstreams[1].envoy_patch.route: has no effect; tcp has none",
            f"{F}[0].listeners[0].envoy_patch.http_connection_manager: has no effect; tcp has none",
        ],
    ),
    # fronts
    "no listeners": (
        front("{name: f, listeners: []}"),
        [f"{F}[0].listeners: is empty; give at least one, such as {{port: 80}}"],
    ),
    "no routes": (
        front("{name: f, listeners: [{port: 1}]}"),
        [f"{F}[0].routes: is empty; give at least one, such as {{prefix: /, service: b}}"],
    ),
    "no routes needed for tcp": (front("{name: f, listeners: [{port: 1, protocol: tcp, service: queue}]}"), []),
    "a front's ports": (
        front(
            "{name: f, admin_port: 2, listeners: [{port: 1}, {port: 2}, {port: 1}], routes: [{prefix: /, service: b}]}"
        ),
        [
            f"{F}[0].listeners[2].port: 1 is already {F}[0].listeners[0].port; give another port",
            f"{F}[0].admin_port: 2 is already {F}[0].listeners[1].port; give another port",
        ],
    ),
    "two fronts on localhost": (
        LOCAL + "services: [{name: a, port: 8081, command: [x]}]\nfronts:\n"
        "  - {name: f, listeners: [{port: 80}, {port: 8080}], routes: [{prefix: /, service: a}]}\n"
        "  - {name: g, listeners: [{port: 8443}, {port: 8080}], routes: [{prefix: /, service: a}]}\n"
        "  - {name: h, listeners: [{port: 443}], routes: [{prefix: /, service: a}]}",
        [
            f"{F}[0].listeners[1].port: 8080 is already {F}[0].listeners[0].port; give another port",
            f"{F}[1].listeners[1].port: 8080 is already {F}[0].listeners[0].port, and both are on localhost",
            f"{F}[2].listeners[0].port: 8443 is already {F}[1].listeners[0].port, and both are on localhost",
        ],
    ),
    "two fronts in pods": (
        (
            "services: [{name: a, port: 1}]\nfronts:\n"
            "  - {name: f, listeners: [{port: 80}], routes: [{prefix: /, service: a}]}\n"
            "  - {name: g, listeners: [{port: 80}], routes: [{prefix: /, service: a}]}"
        ),
        [],
    ),
    "tcp listeners": (
        front(
            "{name: f, listeners: [{port: 1, protocol: tcp, https_redirect: true}, {port: 2, service: b}], "
            "routes: [{prefix: /, service: b}]}"
        ),
        [
            f"{F}[0].listeners[0].service: is missing; a tcp listener passes everything to one service",
            f"{F}[0].listeners[0].https_redirect: has no meaning for tcp; remove it",
            f"{F}[0].listeners[1].service: is for tcp listeners; an http listener takes routes",
        ],
    ),
    "a redirect to where one is": (
        front("{name: f, listeners: [{port: 1, tls: {}, https_redirect: true}], routes: [{prefix: /, service: b}]}"),
        [f"{F}[0].listeners[0].https_redirect: is already on TLS; redirect from a listener without tls"],
    ),
    "a route to tcp": (
        front("{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: queue}]}"),
        [f"{F}[0].routes[0].service: 'queue' has protocol tcp; give it a tcp listener, not a route"],
    ),
    "settings for a service no route names": (
        front(
            "{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: b}], "
            "upstreams: [{service: c}, {service: b}, {service: b}]}"
        ),
        [
            f"{F}[0].upstreams[2].service: 'b' appears 2 times; once is enough",
            f"{F}[0].upstreams[0].service: 'c' is in no route and no listener of this front proxy; remove the entry",
        ],
    ),
    "hosts with two owners": (
        front(
            "{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: b}], virtual_hosts: ["
            "{name: v, domains: [x.y, X.Y], routes: [{prefix: /, service: b}]}, "
            "{name: w, domains: [x.y, '*'], routes: [{prefix: /, service: b}]}, "
            "{name: v, domains: [], routes: [{prefix: /, service: b}]}]}"
        ),
        [
            (
                f"{F}[0].virtual_hosts[0].domains[1]: 'X.Y' is already in {F}[0].virtual_hosts[0].domains[0]; "
                "a host has one owner"
            ),
            (
                f"{F}[0].virtual_hosts[1].domains[0]: 'x.y' is already in {F}[0].virtual_hosts[0].domains[0]; "
                "a host has one owner"
            ),
            f"{F}[0].virtual_hosts[1].domains[1]: '*' is already in {F}[0].routes; a host has one owner",
            f"{F}[0].virtual_hosts[2].domains: is empty; give at least one, such as shop.example.com, or '*' for any",
            f"{F}[0].virtual_hosts[2].name: 'v' appears 2 times; once is enough",
        ],
    ),
    "any host, once": (
        front(
            "{name: f, listeners: [{port: 1}], "
            "virtual_hosts: [{name: v, domains: ['*'], routes: [{prefix: /, service: b}]}]}"
        ),
        [],
    ),
    # routes
    "matches that are none": (
        front(
            "{name: f, listeners: [{port: 1}], routes: [{service: b}, {prefix: /a, path: /a, grpc: a.B, service: b}, "
            "{prefix: /b, service: b, headers: [{name: x}, {name: y, exact: a, present: true}, {name: z, prefix: a}]}]}"
        ),
        [
            f"{F}[0].routes[0]: has no path; {FOUR_PATHS}",
            f"{F}[0].routes[1]: has prefix, path or grpc; {FOUR_PATHS}",
            f"{F}[0].routes[2].headers[0]: has no test; {FOUR_TESTS}",
            f"{F}[0].routes[2].headers[1]: has exact or present; {FOUR_TESTS}",
        ],
    ),
    "routes nobody reaches": (
        front(
            "{name: f, listeners: [{port: 1}], routes: [{prefix: /a, service: b}, {path: /x, service: b}, "
            "{prefix: /ab, service: c}, {path: /x, service: c, headers: [{name: y, present: true}]}, "
            "{prefix: /api., service: b}, {grpc: api.Echo, service: b}, {regex: /z, service: b}, "
            "{regex: /z, service: c}, {prefix: /, service: b}, {regex: '.*', service: c}]}"
        ),
        [
            f"{F}[0].routes[2]: is never reached; {F}[0].routes[0] matches all of it; put it before that one",
            f"{F}[0].routes[3]: is never reached; {F}[0].routes[1] matches all of it; put it before that one",
            f"{F}[0].routes[4]: is never reached; {F}[0].routes[0] matches all of it; put it before that one",
            f"{F}[0].routes[5]: is never reached; {F}[0].routes[0] matches all of it; put it before that one",
            f"{F}[0].routes[7]: is never reached; {F}[0].routes[6] matches all of it; put it before that one",
            f"{F}[0].routes[9]: is never reached; {F}[0].routes[8] matches all of it; put it before that one",
        ],
    ),
    "routes that all are reached": (
        front(
            "{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: b, headers: [{name: x, exact: a}]}, "
            "{path: /a, service: c}, {grpc: api.Echo, service: b}, {prefix: /api.Echo/, service: c}, "
            "{prefix: /a, service: c}, {regex: /a, service: c}, {prefix: /, service: b}]}"
        ),
        [],
    ),
    "ingress routes": (
        "services: [{name: a, port: 1, sidecar: {routes: [{prefix: /}, {path: /a}, {}]}}]",
        [
            (
                f"{S}[0].sidecar.routes[1]: is never reached; {S}[0].sidecar.routes[0] matches all of it; "
                "put it before that one"
            ),
            f"{S}[0].sidecar.routes[2]: has no path; {FOUR_PATHS}",
            (
                f"{S}[0].sidecar.routes[2]: is never reached; {S}[0].sidecar.routes[0] matches all of it; "
                "put it before that one"
            ),
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_has_its_line(case: str) -> None:
    inventory, expected = CASES[case]
    assert problems_of(inventory) == expected


def test_mistakes_of_every_kind_come_in_one_message() -> None:
    """Of a service with a mistake of its own the references are not looked at, but others may refer to it."""
    data = yaml.safe_load("""
services:
  - {name: a, port: 8080, replicas: many, upstreams: [{service: nobody, port: 2}]}
  - {name: b, port: 8080, upstreams: [{service: a, port: 2}, {service: d, port: 8080}]}
  - just-a-name
  - {port: 1}
  - {name: b, port: 1}
fronts:
  - {name: f, listeners: [{port: 1}], routes: [{prefix: /, service: a}, {prefix: /c, service: c}]}
  - {name: g, listeners: [{port: 99999}], routes: [{prefix: /, service: nobody}]}
settings: {engine: local, domian: x, namespace: A}
""")
    with pytest.raises(ModelError) as error:
        build_model(data["services"], data["fronts"], data["settings"])
    elsewhere = "mesh_engine local runs 'b' from it " + OR_ENDPOINTS
    label = "lower-case letters, digits and '-', starting with a letter, at most 63 characters"
    assert str(error.value).splitlines() == [
        "The mesh inventory has 13 problems:",
        (
            "  mesh_domian: unknown key, did you mean 'domain'? "
            "(known: config_delivery, dns, domain, engine, name, namespace, resting, state_path)"
        ),
        f"  mesh_namespace: 'A' is not allowed; give {label}",
        f"  {S}[0].replicas: 'many' is not allowed; give a whole number from 0 to 250",
        f"  {S}[2]: 'just-a-name' is not allowed; give a dict",
        f"  {S}[3].name: is missing; give {label}",
        f"  {F}[1].listeners[0].port: 99999 is not allowed; give a whole number from 1 to 65535",
        f"  {S}[4].name: 'b' is taken by {S}[1].name; names are unique in a mesh",
        f"  {S}[1].command: is missing; {elsewhere}",
        f"  {S}[1].upstreams[1].port: 8080 is already {S}[1].port; give another port",
        f"  {S}[1].upstreams[1].service: 'd' is not in mesh_services (known: a, b)",
        f"  {S}[4].command: is missing; {elsewhere}",
        f"  {F}[0].routes[1]: is never reached; {F}[0].routes[0] matches all of it; put it before that one",
        f"  {F}[0].routes[1].service: 'c' is not in mesh_services (known: a, b)",
    ]


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({"service": "b"}, ("b", "b.default", "b.default.svc", "b.default.svc.cluster.local")),
        ({"service": "b", "match": {"hosts": ["x", "y"], "prefix": "/"}}, ("x", "y")),
        ({"service": "b", "match": {"prefix": "/b"}}, ("*",)),
        ({"service": "b", "match": {"headers": [{"name": "x", "exact": "y"}]}}, ("*",)),
        ({"service": "b", "match": {"hosts": []}}, ("b", "b.default", "b.default.svc", "b.default.svc.cluster.local")),
    ],
)
def test_hosts_of_an_upstream(upstream: dict[str, Any], expected: tuple[str, ...]) -> None:
    caller = {"name": "a", "port": 1, "egress": "shared", "upstreams": [upstream]}
    model = build_model([caller, {"name": "b", "port": 1}])
    assert upstream_hosts(model["services"][0]["upstreams"][0], model["mesh"]) == expected


def test_services_of_a_front() -> None:
    model = build_model(
        [{"name": name, "port": 1, "protocol": "tcp" if name == "q" else "http"} for name in "abq"],
        [
            {
                "name": "f",
                "listeners": [{"port": 1}, {"port": 2, "protocol": "tcp", "service": "q"}],
                "routes": [{"path": "/a", "service": "a"}, {"prefix": "/", "service": "b"}],
                "virtual_hosts": [{"name": "v", "domains": ["v"], "routes": [{"prefix": "/", "service": "b"}]}],
            }
        ],
    )
    assert front_services(model["front_proxies"][0]) == ["b", "a", "q"]
