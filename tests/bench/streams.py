"""Connects as a thousand Envoys do, by the Python that has the control plane's packages, and acknowledges what comes.

    python streams.py HOST:PORT TOKEN < {"proxy": {"endpoints": [names], "routes": [names]}}

A line of JSON when all have all for the first time, with seconds and bytes; and after each line on stdin, for what came
within QUIET_SECONDS of silence since the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any

import grpc
from ansible_collections.sidecar.mesh.plugins.module_utils.names import TOKEN_HEADER
from control_plane.encode import TYPE_URLS
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

QUIET_SECONDS = 0.5


class Traffic:
    """What came."""

    def __init__(self) -> None:
        self.bytes = 0
        self.responses = 0
        self.proxies: set[str] = set()
        self.last = time.monotonic()

    def add(self, proxy: str, size: int) -> None:
        self.bytes += size
        self.responses += 1
        self.proxies.add(proxy)
        self.last = time.monotonic()

    def take(self) -> dict[str, int]:
        found = {"bytes": self.bytes, "responses": self.responses, "proxies": len(self.proxies)}
        self.bytes = self.responses = 0
        self.proxies = set()
        return found


async def follow(
    target: str, token: str, proxy: str, names: dict[str, list[str]], traffic: Traffic, whole: Any
) -> None:
    """One Envoy, on a connection of its own."""
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(target, options) as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        call = stub.DeltaAggregatedResources(metadata=((TOKEN_HEADER, token),))
        for kind in TYPE_URLS:
            request = discovery_pb2.DeltaDiscoveryRequest(
                node=base_pb2.Node(id=proxy), type_url=TYPE_URLS[kind], resource_names_subscribe=names.get(kind, [])
            )
            await call.write(request)
        missing = {TYPE_URLS[kind] for kind in TYPE_URLS if names.get(kind, True)}
        while (response := await call.read()) is not grpc.aio.EOF:
            traffic.add(proxy, response.ByteSize())
            answer = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            await call.write(answer)
            if missing:
                missing.discard(response.type_url)
                if not missing:
                    whole.set_result(None)


async def main(target: str, token: str) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=2**30)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    wanted = json.loads(await reader.readline())
    traffic, begin = Traffic(), time.monotonic()
    done = {proxy: loop.create_future() for proxy in wanted}
    streams = [
        asyncio.create_task(follow(target, token, proxy, names, traffic, done[proxy]))
        for proxy, names in wanted.items()
    ]
    await asyncio.gather(*done.values())
    print(json.dumps({"seconds": time.monotonic() - begin, **traffic.take()}), flush=True)
    while await reader.readline():
        asked = time.monotonic()
        while time.monotonic() < max(asked, traffic.last) + QUIET_SECONDS:
            await asyncio.sleep(0.02)
        print(json.dumps(traffic.take()), flush=True)
    for stream in streams:
        stream.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*streams)


asyncio.run(main(*sys.argv[1:]))
