"""Nodes for tests, and what they install on them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import build as cluster_build
from cluster.commands import Missing, require_go

from nodes import fleet, stand_in
from nodes.places import FLEETS, Fleet
from nodes.site import Site
from nodes.stand_in import Releases


def _site(chosen: Fleet) -> Iterator[Site]:
    """New nodes, and the programs that the stand-in for k3s starts on them."""
    try:
        require_go("1.26")
        cluster_build.build()
        fleet.down(chosen)
        fleet.up(chosen)
    except Missing as reason:
        pytest.skip(str(reason))
    yield Site(chosen)
    fleet.down(chosen)


@pytest.fixture(scope="session")
def pair() -> Iterator[Site]:
    """A server and an agent, bare in the beginning."""
    yield from _site(FLEETS["tests"])


@pytest.fixture(scope="session")
def releases(pair: Site) -> Iterator[Releases]:
    """Where its nodes download k3s from: the stand-in, in two versions."""
    with stand_in.releases(pair.fleet.host) as offered:
        for version in (stand_in.VERSION, stand_in.NEWER):
            offered.publish(version, {"amd64": stand_in.build(version).read_bytes()})
        offered.channels["stable"] = stand_in.VERSION
        yield offered
