"""What is wrong with the way to a service: settings that do not go together, or not with who is called."""

from __future__ import annotations

import pytest
from unit.mistakes import FIRST, LOCAL, TWO, F, S, problems_of, upstream

GRPC_HEALTH = "/grpc.health.v1.Health/Check"
REFUSED = "asks for {0}, which the sidecar of {1!r} does not let pass; add {{path: {0}}} to its sidecar.routes"


CASES: dict[str, tuple[str, list[str]]] = {
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
    "a header of tls": (
        "services: [{name: a, port: 1, protocol: tls, lb_policy: maglev, hash_on: {cookie: c}}]",
        [f"{S}[0].hash_on: tls has no headers; give source_ip: true"],
    ),
    "health checks of tls": (
        (
            "services: [{name: a, port: 1, protocol: tls, health_check: http}, "
            "{name: b, port: 1, protocol: tls, health_check: {}}]"
        ),
        [f"{S}[0].health_check.type: 'http' needs an HTTP protocol, and 'a' has tls; give tcp"],
    ),
    # failures
    "ejections": (
        upstream(
            "{service: b, port: 2, outlier_detection: {base_ejection_time: 10m}}, "
            "{service: c, port: 3, outlier_detection: {base_ejection_time: 10m, max_ejection_time: 10m}}"
        ),
        [
            f"{FIRST}.outlier_detection.max_ejection_time: 300s is below base_ejection_time, 600s; give at least that",
        ],
    ),
    "connections of tcp": (
        (
            "services: [{name: q, port: 1, protocol: tcp, connection: {idle_timeout: 1s, max_duration: 1s, "
            "max_requests: 1, tcp_keepalive: {}}, outlier_detection: {errors: [429]}}]"
        ),
        [
            f"{S}[0].connection.idle_timeout: has no meaning for tcp; give the upstream an idle_timeout",
            f"{S}[0].connection.max_duration: has no meaning for tcp; remove it",
            f"{S}[0].connection.max_requests: has no meaning for tcp; remove it",
            f"{S}[0].outlier_detection.errors: tcp has no statuses; remove it",
        ],
    ),
    "a slow start": (
        (
            "services:\n  - {name: a, port: 1, lb_policy: random, slow_start: 1s}\n"
            "  - {name: d, port: 8080, upstreams: [{service: b, port: 2, slow_start: 1s}]}\n"
            "  - {name: b, port: 1, lb_policy: maglev, hash_on: {source_ip: true}}"
        ),
        [
            f"{S}[0].slow_start: needs lb_policy round_robin or least_request, and it is random",
            f"{S}[1].upstreams[0].slow_start: needs lb_policy round_robin or least_request, and it is maglev",
        ],
    ),
    # zones
    "zones on kubernetes": (
        "services: [{name: a, port: 1, zone_aware: true}, {name: b, port: 1, zone_aware: false}]",
        [f"{S}[0].zone_aware: DNS tells no zones on engine kubernetes; remove it"],
    ),
    "zones that nobody tells": (
        LOCAL
        + """
services:
  - {name: a, port: 81, command: [x], zone_aware: true}
  - {name: b, port: 81, command: [x], zone_aware: true, discovery: eds}
  - name: c
    port: 81
    command: [x]
    upstreams: [{service: d, port: 90}, {service: e, port: 91, discovery: dns}, {service: f, port: 92, zone_aware: {}}]
  - {name: d, port: 81, command: [x], zone_aware: true, discovery: eds, zones: [x]}
  - {name: e, port: 81, command: [x], zone_aware: true, discovery: eds, zones: [x]}
  - {name: f, port: 81, discovery: static, endpoints: [{address: 10.0.0.1, zone: x}]}
  - {name: g, port: 81, zone_aware: {}, discovery: static, endpoints: [{address: 10.0.0.1, zone: x}, {address: '::1'}]}
  - {name: h, port: 81, command: [x], zones: [y], upstreams: [{service: d, port: 90}, {service: f, port: 91}]}
""",
        [
            f"{S}[0].zone_aware: DNS tells no zones; give discovery static or eds",
            f"{S}[1].zone_aware: the replicas of 'b' have no zones; give it zones",
            f"{S}[2].upstreams[0].zone_aware: the replicas of 'c' have no zones; give it zones",
            f"{S}[2].upstreams[1].zone_aware: DNS tells no zones; give discovery static or eds",
            f"{S}[2].upstreams[2].zone_aware: the replicas of 'c' have no zones; give it zones",
            f"{S}[6].zone_aware: the replicas of 'g' have no zones; give it zones",
        ],
    ),
    # versions: each of them is called
    "an upstream of versions": (
        """
services:
  - {name: a, port: 8080, upstreams: [{service: v, port: 2, lb_policy: maglev, health_check: {path: /up}}]}
  - {name: v, port: 1, versions: [{service: b, weight: 1}, {service: c}]}
  - {name: b, port: 1, hash_on: {header: x}, sidecar: {routes: [{path: /up}]}}
  - {name: c, port: 1, sidecar: {routes: [{path: /down}]}}
""",
        [
            f"{FIRST}.hash_on: is missing; maglev needs a header, cookie or source_ip to hash",
            f"{FIRST}.health_check: {REFUSED.format('/up', 'c')}",
        ],
    ),
    # what requests are told
    "retries": (
        upstream(
            "{service: b, port: 2, retries: {count: 0, on: [retriable-status-codes], hedge: true, "
            "backoff: {base: 2s, max: 1s}}}, "
            "{service: c, port: 3, idempotent: true, retries: {hedge: true, statuses: [409]}}"
        ),
        [
            f"{FIRST}.retries.statuses: is missing; retriable-status-codes needs the statuses to retry",
            f"{FIRST}.retries.hedge: sends a request twice; only with idempotent: true beside it",
            f"{FIRST}.retries.hedge: needs a retry to send; give count at least 1",
            f"{FIRST}.retries.backoff.max: 1s is below base, 2s; give at least that",
        ],
    ),
    "retries of tcp": (
        upstream(
            "{service: queue, port: 2, retries: {count: 1, on: [5xx], hedge: true, per_try_timeout: 1s, backoff: 1}}"
        ),
        [
            f"{FIRST}.retries.{key}: has no meaning for tcp; give retries a number only"
            for key in ("on", "per_try_timeout", "backoff", "hedge")
        ],
    ),
    "requests of tls": (
        upstream("{service: secret, port: 2, mirror: b, fault: {abort: 500}, rate_limit: 1, request_headers: {}}"),
        [
            f"{FIRST}.{key}: has no meaning for tls; remove it, or change 'secret' to protocol http"
            for key in ("request_headers", "mirror", "fault", "rate_limit")
        ],
    ),
    "deadlines of grpc": (
        upstream("{service: b, port: 2, grpc_timeout_max: 1s}"),
        [f"{FIRST}.grpc_timeout_max: needs protocol grpc, and 'b' has http; remove it"],
    ),
    "mirrors of an upstream": (
        upstream(
            "{service: b, port: 2, mirror: b}, {service: c, port: 3, mirror: {service: queue}}, "
            "{service: out, port: 4, mirror: nobody}"
        ),
        [
            f"{FIRST}.mirror.service: 'b' gets these requests already; give another service",
            f"{S}[0].upstreams[1].mirror.service: 'queue' has protocol tcp, and 'c' http; both need the same",
            (
                f"{S}[0].upstreams[2].mirror.service: 'nobody' is not in mesh_services "
                "(known: a, b, c, far, out, queue, secret)"
            ),
        ],
    ),
    "the host is no header": (
        upstream(
            "{service: b, port: 2, request_headers: {set: {Host: x}, remove: [host]}, "
            "response_headers: {add: {host: x}}}",
            "sidecar: {routes: [{prefix: /, request_headers: {set: {host: x}}}]},",
        ),
        [
            f"{S}[0].sidecar.routes[0].request_headers.set: 'host' is not changed like a header; remove it",
            f"{FIRST}.request_headers.set: 'host' is not changed like a header; give host_rewrite",
            f"{FIRST}.request_headers.remove: 'host' is not changed like a header; give host_rewrite",
            f"{FIRST}.response_headers.add: 'host' is not changed like a header; remove it",
        ],
    ),
    "faults": (
        upstream(
            "{service: b, port: 2, fault: {}}, {service: c, port: 3, fault: {abort: {}}}, "
            "{service: far, port: 4, fault: {abort: {grpc_status: 14}, headers: [{name: x}]}}, "
            "{service: out, port: 5, fault: {delay: 1s, abort: {status: 503, grpc_status: 14}}}"
        ),
        [
            f"{FIRST}.fault: does nothing; give delay or abort",
            f"{S}[0].upstreams[1].fault.abort: give exactly one of status or grpc_status",
            f"{S}[0].upstreams[2].fault.abort.grpc_status: needs protocol grpc, and 'far' has http",
            (f"{S}[0].upstreams[2].fault.headers[0]: has no test; give exactly one of exact, prefix, regex or present"),
            f"{S}[0].upstreams[3].fault.abort: give exactly one of status or grpc_status",
            f"{S}[0].upstreams[3].fault.abort.grpc_status: needs protocol grpc, and 'out' has http",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_has_its_line(case: str) -> None:
    inventory, expected = CASES[case]
    assert problems_of(inventory) == expected
