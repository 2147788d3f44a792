"""Another machine, as far as proxies can tell: a network of its own, with applications whose addresses can vanish.

What vanishes answers nothing, not even with a refusal: a machine without power, a pod whose node is gone. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest
from behaviour.envoys import Application, serve

_NEW_NETWORK = 0x40000000
_NOBODY = "02:00:00:00:00:01"


class Elsewhere:
    """``addresses``: as many as were asked for."""

    def __init__(self, count: int) -> None:
        self._name = f"mesh-{secrets.token_hex(4)}"
        self._near, self._far = (f"m{self._name[5:]}{side}" for side in "ab")
        # Of the networks for tests of networks (RFC 2544).
        self._network = f"198.{random.choice((18, 19))}.{random.randint(0, 255)}"
        self.addresses = [f"{self._network}.{number}" for number in range(1, count + 1)]

    def make(self) -> None:
        _ip("netns", "add", self._name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far, "netns", self._name)
        _ip("addr", "add", f"{self._network}.254/24", "dev", self._near)
        for address in self.addresses:
            _ip("-n", self._name, "addr", "add", f"{address}/24", "dev", self._far)
        _ip("link", "set", self._near, "up")
        _ip("-n", self._name, "link", "set", self._far, "up")

    def remove(self) -> None:
        for command in (("link", "del", self._near), ("netns", "del", self._name)):
            subprocess.run(["ip", *command], check=False, capture_output=True)

    def serve(self, protocol: str, address: str, port: int, name: str) -> Application:
        """An application there."""

        def inside() -> Application:
            # Of this thread only; a socket belongs to the network in which it was made.
            with Path(f"/run/netns/{self._name}").open() as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), _NEW_NETWORK):
                    raise OSError(ctypes.get_errno(), "setns")
            return serve(protocol, address, port, name)

        with futures.ThreadPoolExecutor(1) as thread:
            return thread.submit(inside).result()

    def vanish(self, address: str) -> None:
        """From now on, what is sent to an address reaches nobody."""
        _ip("neigh", "replace", address, "lladdr", _NOBODY, "nud", "permanent", "dev", self._near)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def elsewhere(count: int) -> Iterator[Elsewhere]:
    """A network with so many addresses, for the length of a block."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("only root can make a network namespace, with the command ip")
    made = Elsewhere(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()
