"""What is wrong with routes, wherever they are: matches that are none, and routes that hide each other."""

from __future__ import annotations

import pytest
from unit.mistakes import F, S, front, problems_of

FOUR_PATHS = "give exactly one of prefix, path, regex or grpc"
FOUR_TESTS = "give exactly one of exact, prefix, regex or present"


CASES: dict[str, tuple[str, list[str]]] = {
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
