"""What is wrong with a front proxy: its listeners, hosts, and settings for services."""

from __future__ import annotations

import pytest
from unit.mistakes import LOCAL, F, front, problems_of

CASES: dict[str, tuple[str, list[str]]] = {
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
            f"{F}[0].listeners[1].service: is for tcp listeners; a listener of protocol http takes routes",
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
    # what kinds of listeners have not
    "tls listeners": (
        """
services:
  - {name: s, port: 1, protocol: tls, server_names: [x.y]}
  - {name: t, port: 1, protocol: tls, host: x.y}
  - {name: b, port: 1}
  - {name: v, port: 1, protocol: tls, versions: [{service: s, weight: 1}], server_names: [z]}
fronts:
  - name: f
    listeners:
      - {port: 1, protocol: tls}
      - {port: 2, protocol: tls, services: [s, b, nobody, t, s, v]}
      - {port: 3, protocol: tls, service: s, services: [s], tls: {}, rate_limit: 1, https_redirect: true}
""",
        [
            f"{F}[0].listeners[0].services: is missing; give the services of protocol tls that clients may ask for",
            f"{F}[0].listeners[1].services[4]: 's' appears 2 times; once is enough",
            f"{F}[0].listeners[1].services[1]: 'b' has protocol http; a tls listener needs tls",
            f"{F}[0].listeners[1].services[2]: 'nobody' is not in mesh_services (known: b, s, t, v)",
            f"{F}[0].listeners[1].services[3]: the server name 'x.y' is already that of 's'",
            f"{F}[0].listeners[2].service: is for tcp listeners; a listener of protocol tls takes services",
            f"{F}[0].listeners[2].https_redirect: has no meaning for tls; remove it",
            f"{F}[0].listeners[2].rate_limit: has no meaning for tls; remove it",
            f"{F}[0].listeners[2].https_redirect: is already on TLS; redirect from a listener without tls",
            (f"{F}[0].listeners[2].tls: protocol tls is passed on as it is; remove it, or give protocol http or tcp"),
        ],
    ),
    "services of an http listener": (
        front("{name: f, listeners: [{port: 1, services: [secret]}], routes: [{prefix: /, service: b}]}"),
        [f"{F}[0].listeners[0].services: is for tls listeners; a listener of protocol http takes routes"],
    ),
    "a route to tls": (
        front("{name: f, listeners: [{port: 1}], routes: [{prefix: /, service: secret}]}"),
        [f"{F}[0].routes[0].service: 'secret' has protocol tls; give it a tls listener, not a route"],
    ),
    "the port of metrics": (
        front("{name: f, admin_port: 9902, listeners: [{port: 9902}], routes: [{prefix: /, service: b}]}"),
        [
            f"{F}[0].admin_port: 9902 is already {F}[0].listeners[0].port; give another port",
            f"{F}[0].metrics.port: 9902 is already {F}[0].listeners[0].port; give another port",
        ],
    ),
    # what requests are told
    "a hedge on one of two routes": (
        front(
            "{name: f, listeners: [{port: 1}], "
            "routes: [{path: /b, service: b, retries: {hedge: true}}, {path: /c, service: c, retries: {hedge: true}}, "
            "{prefix: /, service: c, idempotent: false, retries: {hedge: true}}], "
            "upstreams: [{service: c, idempotent: true}]}"
        ),
        [
            f"{F}[0].routes[{index}].retries.hedge: sends a request twice; only with idempotent: true beside it"
            for index in (0, 2)
        ],
    ),
    "what a route and an upstream tell requests": (
        front(
            "{name: f, listeners: [{port: 1}, {port: 2, protocol: tcp, service: queue}], "
            "routes: [{prefix: /, service: b, mirror: b, fault: {}, request_headers: {set: {host: x}}}], "
            "upstreams: [{service: b, mirror: nobody, grpc_timeout_max: 1s}, {service: queue, timeout: 1s}]}"
        ),
        [
            f"{F}[0].routes[0].mirror.service: 'b' gets these requests already; give another service",
            f"{F}[0].routes[0].request_headers.set: 'host' is not changed like a header; give host_rewrite",
            f"{F}[0].routes[0].fault: does nothing; give delay or abort",
            f"{F}[0].upstreams[0].grpc_timeout_max: needs protocol grpc, and 'b' has http; remove it",
            f"{F}[0].upstreams[0].mirror.service: 'nobody' is not in mesh_services (known: b, c, queue, secret)",
            f"{F}[0].upstreams[1].timeout: has no meaning for tcp; remove it, or change 'queue' to protocol http",
        ],
    ),
    # versions
    "settings for versions": (
        """
services:
  - {name: v, port: 1, versions: [{service: b, weight: 1}, {service: c}]}
  - {name: b, port: 1}
  - {name: c, port: 1, protocol: http}
  - {name: d, port: 1}
fronts:
  - name: f
    listeners: [{port: 1}]
    routes: [{prefix: /, service: v}]
    upstreams:
      - {service: v, timeout: 1s, lb_policy: maglev}
      - {service: b, timeout: 1s, idempotent: true, connect_timeout: 1s}
      - {service: d}
""",
        [
            f"{F}[0].upstreams[0].hash_on: is missing; maglev needs a header, cookie or source_ip to hash",
            f"{F}[0].upstreams[1].timeout: has no effect; requests reach 'b' through 'v'; give it there",
            f"{F}[0].upstreams[1].idempotent: has no effect; requests reach 'b' through 'v'; give it there",
            f"{F}[0].upstreams[2].service: 'd' is in no route and no listener of this front proxy; remove the entry",
        ],
    ),
    # zones
    "a front without zones": (
        LOCAL
        + """
services:
  - {name: a, port: 81, command: [x], zone_aware: true, discovery: eds, zones: [x]}
  - {name: v, port: 81, versions: [{service: a, weight: 1}]}
  - {name: b, port: 81, command: [x], discovery: eds, zones: [x]}
fronts:
  - {name: f, listeners: [{port: 80}], routes: [{prefix: /, service: a}]}
  - {name: g, listeners: [{port: 81}], routes: [{prefix: /, service: v}]}
  - {name: h, listeners: [{port: 82}], routes: [{prefix: /, service: b}], upstreams: [{service: b, zone_aware: true}]}
  - {name: i, listeners: [{port: 83}], routes: [{prefix: /, service: a}], upstreams: [{service: a, zone_aware: false}]}
  - {name: j, listeners: [{port: 84}], routes: [{prefix: /, service: v}], zones: [x]}
""",
        [
            f"{F}[0].zones: is missing; 'a' is zone_aware, which takes the zones of callers",
            f"{F}[1].zones: is missing; 'a' is zone_aware, which takes the zones of callers",
            f"{F}[2].upstreams[0].zone_aware: the replicas of 'h' have no zones; give it zones",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_has_its_line(case: str) -> None:
    inventory, expected = CASES[case]
    assert problems_of(inventory) == expected
