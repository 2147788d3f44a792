"""Inventories of any size."""

from __future__ import annotations

from typing import Any

PROTOCOLS = ("http", "http", "grpc", "http2", "tcp")
UPSTREAMS = 5


def protocol(index: int) -> str:
    return PROTOCOLS[index % len(PROTOCOLS)]


def name(index: int) -> str:
    return f"service-{index:04}"


def mesh(size: int) -> dict[str, Any]:
    """Variables of an inventory: each service calls the five after it, and a front proxy all that speak HTTP."""
    routes = [{"prefix": f"/{name(i)}/", "service": name(i)} for i in range(size) if protocol(i) != "tcp"]
    return {
        "mesh_engine": "kubernetes",
        "mesh_services": [_service(index, size) for index in range(size)],
        "mesh_front_proxies": [{"name": "front", "listeners": [{"port": 80}], "routes": routes}],
    }


def _service(index: int, size: int) -> dict[str, Any]:
    return {
        "name": name(index),
        "image": f"registry.example.com/{name(index)}:1",
        "port": 8080,
        "protocol": protocol(index),
        "replicas": 2,
        "upstreams": [_upstream((index + step) % size, 9000 + step) for step in range(1, UPSTREAMS + 1)],
        **({"health_check": "grpc"} if protocol(index) == "grpc" else {}),
    }


def _upstream(index: int, port: int) -> dict[str, Any]:
    policy = {} if protocol(index) == "tcp" else {"timeout": "2s", "retries": 2, "idempotent": index % 2 == 0}
    return {"service": name(index), "port": port, **policy}
