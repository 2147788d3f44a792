"""Tests on the cluster run beside each other, but for those that take something away from all of them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.places import CACHE

_FILE = CACHE / "cluster.lock"


@contextmanager
def beside_others() -> Iterator[None]:
    """For the time of the block, nobody takes anything away."""
    # Whoever waits to be alone comes first.
    time.sleep(0.2)
    with _locked(fcntl.LOCK_SH):
        yield


@contextmanager
def alone() -> Iterator[None]:
    """Waits until nobody else is there, and keeps all others out."""
    with _locked(fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(how: int) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with _FILE.open("w") as file:
        fcntl.flock(file, how)
        yield
