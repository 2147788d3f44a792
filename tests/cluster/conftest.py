"""Keeps tests on the cluster from each other's way."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from cluster.sharing import alone, beside_others


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    with alone() if item.get_closest_marker("alone") else beside_others():
        return (yield)
