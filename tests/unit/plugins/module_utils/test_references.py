"""What is wrong between the parts of an inventory: every mistake, its exact line, and all of them at once."""

from __future__ import annotations

import pytest
import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.model import ModelError, build_model
from unit.mistakes import FAR, FIRST, KUBERNETES, LOCAL, TWO, F, S, problems_of, upstream

TIMES_SHARED = "upstreams that share a host list the same hosts"
FOUR_PATHS = "give exactly one of prefix, path, regex or grpc"
OR_BUILD = "(or give build, endpoints or host, if it runs elsewhere)"
OR_ENDPOINTS = "(or give endpoints or host, if it runs elsewhere)"
NEEDS = "needs endpoints of {!r} on engine kubernetes; list them, or use dns"
NO_SIDECAR = "a service that does not run here ({}) has no sidecar here"
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
            f"{S}[0].image: is missing; mesh_engine kubernetes runs 'a' from it {OR_BUILD}",
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
        [f"{S}[0].upstreams: a service that does not run here (endpoints) has none; remove one of the two"],
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
            "{service: queue, port: 2, timeout: 1s, idle_timeout: 1s, retries: 1, idempotent: false, "
            "prefix_rewrite: /, host_rewrite: x, "
            "match: {prefix: /}}"
        ),
        [
            f"{S}[0].upstreams[0].match: has no use beside port; this upstream has a listener of its own",
            *(
                f"{S}[0].upstreams[0].{key}: has no meaning for tcp; remove it, or change 'queue' to protocol http"
                for key in ("timeout", "idempotent", "prefix_rewrite", "host_rewrite", "match")
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
    # services elsewhere, by a host
    "more than one place": (
        "services: [{name: a, port: 1, host: x.y, discovery: static, endpoints: [{address: 10.0.0.1}]}]",
        [
            f"{S}[0]: has endpoints or host; a service has at most one of them",
            f"{S}[0].discovery: 'static' has no use for a host; give dns",
        ],
    ),
    "a host has neither command nor upstreams": (
        LOCAL + "services:\n  - {name: a, port: 1, host: x.y, upstreams: [{service: b, port: 2}]}\n"
        "  - {name: b, port: 1, host: x.z}",
        [f"{S}[0].upstreams: a service that does not run here (host) has none; remove one of the two"],
    ),
    "tls to nowhere": (
        (
            "services:\n  - {name: a, port: 1, tls: true}\n"
            "  - {name: b, port: 1, host: x.y, protocol: tls, tls: true}\n"
            "  - {name: c, port: 1, discovery: eds, endpoints: [{address: 10.0.0.1}], tls: {}}\n"
            "  - {name: d, port: 1, tls: false}\n  - {name: e, port: 1, host: x.y, tls: true}"
        ),
        [
            f"{S}[0].tls: is for a service that runs elsewhere; give host or endpoints, or remove it",
            f"{S}[1].tls: protocol tls is passed on as it is; remove it, or give the protocol inside",
            f"{S}[2].tls.server_name: is missing; endpoints have no name to check the certificate by",
        ],
    ),
    "server names": (
        (
            "services:\n  - {name: a, port: 1, server_names: [x.y]}\n"
            "  - {name: b, port: 1, protocol: tls, discovery: eds, endpoints: [{address: 10.0.0.1}]}"
        ),
        [
            f"{S}[0].server_names: is for protocol tls, and it is http",
            f"{S}[1].server_names: is missing; give the names under which clients ask for it",
        ],
    ),
    "a host is no place for patches": (
        "services: [{name: a, port: 1, host: x.y, envoy_patch: {cluster: {a: 1}}}]",
        [f"{S}[0].envoy_patch.cluster: has no effect; {NO_SIDECAR.format('host')}"],
    ),
    # versions
    "versions that are none": (
        """
services:
  - name: a
    port: 1
    lb_policy: random
    websocket: true
    circuit_breakers: 1
    outlier_detection: false
    versions:
      - {service: b}
      - {service: nobody, headers: [{name: x}]}
      - {service: q}
      - {service: v}
      - {service: b}
  - {name: b, port: 1}
  - {name: q, port: 1, protocol: tcp}
  - {name: v, port: 1, versions: [{service: b, weight: 1}]}
""",
        [
            f"{S}[0].versions[4].service: 'b' appears 2 times; once is enough",
            f"{S}[0].versions: no version has a weight; give at least one of them a weight",
            *(
                f"{S}[0].{key}: has no effect beside versions; give it to the versions"
                for key in ("lb_policy", "circuit_breakers", "outlier_detection", "websocket")
            ),
            f"{S}[0].versions[1].service: 'nobody' is not in mesh_services (known: a, b, q, v)",
            f"{S}[0].versions[1].headers[0]: has no test; give exactly one of exact, prefix, regex or present",
            f"{S}[0].versions[2].service: 'q' has protocol tcp, and 'a' http; all versions need the same",
            f"{S}[0].versions[3].service: 'v' has versions itself; name a service that answers",
        ],
    ),
    "a version of itself": (
        "services: [{name: a, port: 1, versions: [{service: a, weight: 1}]}]",
        [f"{S}[0].versions[0].service: 'a' has versions itself; name a service that answers"],
    ),
    "what tcp has not to tell versions by": (
        """
services:
  - name: a
    port: 1
    protocol: tcp
    sticky: {cookie: c}
    mirror: r
    versions: [{service: q, weight: 1, headers: [{name: x, exact: y}]}, {service: r, cookie: beta}]
  - {name: q, port: 1, protocol: tcp}
  - {name: r, port: 1, protocol: tcp}
""",
        [
            f"{S}[0].versions[0].headers: has no meaning for tcp; remove it",
            f"{S}[0].versions[1].cookie: has no meaning for tcp; remove it",
            f"{S}[0].sticky: has no meaning for tcp; remove it",
            f"{S}[0].mirror: has no meaning for tcp; remove it",
        ],
    ),
    "sticky": (
        (
            "services:\n  - {name: a, port: 1, sticky: {cookie: c}}\n"
            "  - {name: b, port: 1, sticky: {cookie: c, header: h}, versions: [{service: a, weight: 1}]}"
        ),
        [
            f"{S}[0].sticky: has no use without versions; remove it, or see lb_policy and hash_on",
            f"{S}[1].sticky: give exactly one of header, cookie or source_ip",
        ],
    ),
    "versions need no image and no proxy": (
        (
            f"{KUBERNETES}services:\n  - {{name: a, port: 1, versions: [{{service: b, weight: 1}}], "
            "envoy_patch: {listener: {a: 1}}}\n  - {name: b, image: x, port: 1}"
        ),
        [f"{S}[0].envoy_patch.listener: has no effect; {NO_SIDECAR.format('versions')}"],
    ),
    "a version with a mistake of its own": (
        """
services:
  - {name: a, port: 8080, egress: shared, mirror: w, upstreams: [{service: v, zone_aware: true}, {service: w, port: 2}]}
  - {name: v, port: 1, versions: [{service: w, weight: 1}]}
  - {name: w, port: 1, replicas: many, protocol: tls}
  - {name: x, port: 1, protocol: tls, versions: [{service: w, weight: 1}]}
fronts:
  - name: f
    listeners: [{port: 1}, {port: 2, protocol: tls, services: [w, x]}, {port: 3, protocol: tcp, service: w}]
    routes: [{prefix: /, service: v}]
    upstreams: [{service: w}, {service: v}]
""",
        [f"{S}[2].replicas: 'many' is not allowed; give a whole number from 0 to 250"],
    ),
    "a version that calls its own name": (
        (
            "services:\n  - {name: a, port: 8080, upstreams: [{service: v, port: 2}]}\n"
            "  - {name: v, port: 1, versions: [{service: a, weight: 1}]}"
        ),
        [f"{FIRST}.service: 'a' is itself a version of 'v'; give another service"],
    ),
    # mirrors, websockets, limits
    "mirrors": (
        """
services:
  - {name: a, port: 1, mirror: nobody}
  - {name: b, port: 1, mirror: {service: b, percent: 1}}
  - {name: c, port: 1, mirror: v}
  - {name: d, port: 1, mirror: q}
  - {name: v, port: 1, versions: [{service: a, weight: 1}]}
  - {name: q, port: 1, protocol: tcp}
""",
        [
            f"{S}[0].mirror.service: 'nobody' is not in mesh_services (known: a, b, c, d, q, v)",
            f"{S}[1].mirror.service: 'b' gets these requests already; give another service",
            f"{S}[2].mirror.service: 'v' is a name for its versions; give one of them",
            f"{S}[3].mirror.service: 'q' has protocol tcp, and 'd' http; both need the same",
        ],
    ),
    "copies that come back": (
        """
services:
  - {name: a, port: 8080, upstreams: [{service: b, port: 2}, {service: c, port: 3, mirror: a}]}
  - {name: b, port: 1, mirror: a}
  - {name: c, port: 1}
""",
        [
            f"{S}[0].upstreams[{i}].mirror: copies of what 'a' sends would come back to it; mirror to another service"
            for i in (0, 1)
        ],
    ),
    "what a protocol has not": (
        "services: [{name: a, port: 1, protocol: tcp, websocket: true, sidecar: {rate_limit: 1, max_connections: 1}}]",
        [
            f"{S}[0].websocket: needs protocol http, and it is tcp",
            f"{S}[0].sidecar.rate_limit: tcp has no requests; give max_connections",
        ],
    ),
    # ports
    "the port of metrics": (
        upstream("{service: b, port: 9902}", "sidecar: {port: 9000, metrics: {port: 9000}},")
        + "  - {name: z, port: 9902, sidecar: {metrics: false}}\n",
        [f"{S}[0].sidecar.metrics.port: 9000 is already {S}[0].sidecar.port; give another port"],
    ),
    "a port for tls": (
        """
services:
  - name: a
    port: 8080
    upstreams:
      - {service: s, port: 9443}
      - {service: t, port: 9443, envoy_patch: {listener: {a: 1}, cluster: {a: 1}}}
      - {service: b, port: 9443}
      - {service: nobody, port: 9443}
      - {service: u, port: 9443}
  - {name: b, port: 1}
  - {name: s, port: 1, protocol: tls, server_names: [x.y, x.z]}
  - {name: t, port: 1, protocol: tls, host: x.z}
  - {name: u, port: 1, protocol: tls}
""",
        [
            f"{S}[0].upstreams[2].port: 9443 is already {FIRST}.port; give another port",
            f"{S}[0].upstreams[3].port: 9443 is already {FIRST}.port; give another port",
            f"{S}[0].upstreams[1].envoy_patch.listener: has no effect; this port's listener is that of {FIRST}",
            (
                f"{S}[0].upstreams[1].port: the server name 'x.z' is already that of {FIRST} on this port; "
                "give another port"
            ),
            f"{S}[0].upstreams[3].service: 'nobody' is not in mesh_services (known: a, b, s, t, u)",
        ],
    ),
    "no port for tls beside a shared listener": (
        upstream("{service: secret}", "egress: shared,"),
        [f"{FIRST}.port: is missing; give the port on which the sidecar listens for 'secret'"],
    ),
    "a host of an outside service's": (
        upstream("{service: out}, {service: b, match: {hosts: [api.example.com, b]}}", "egress: shared,"),
        [
            (
                f"{S}[0].upstreams[1].match.hosts: 'api.example.com' is in a different list of another upstream; "
                f"{TIMES_SHARED}"
            )
        ],
    ),
    "patches of shared hosts": (
        upstream(
            "{service: b, match: {hosts: [x], prefix: /b}, envoy_patch: {virtual_host: {a: 1}}}, "
            "{service: c, match: {hosts: [x]}, envoy_patch: {virtual_host: {a: 1}}}",
            "egress: shared,",
        ),
        [f"{S}[0].upstreams[1].envoy_patch.virtual_host: has no effect; these hosts are those of {FIRST}"],
    ),
    "a patch of a listener that is not there": (
        upstream("{service: b, port: 2}", "egress: {mode: shared, envoy_patch: {listener: {a: 1}}},"),
        [f"{S}[0].egress.envoy_patch: has no effect; no upstream uses the shared listener"],
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
            f"{S}[1].envoy_patch.listener: has no effect; {NO_SIDECAR.format('endpoints')}",
            f"{S}[2].envoy_patch.http_connection_manager: has no effect; tcp has none",
            (
                f"{S}[3].upstreams[0].envoy_patch.listener: has no effect; the upstream has no listener of its own; "
                "give it a port, or see egress.envoy_patch"
            ),
            f"{S}[3].upstreams[1].envoy_patch.route: has no effect; tcp has none",
            f"{F}[0].listeners[0].envoy_patch.http_connection_manager: has no effect; tcp has none",
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
            "(known: ca_file, config_delivery, control_plane, dns, domain, engine, envoy_image, image_pull_secrets, "
            "images, name, namespace, network_policy, resting, state_path, "
            "stats, tracing)"
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
