"""Bootstrap and command line."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments, bootstrap

PROXY: dict[str, Any] = {
    "workload": "a",
    "delivery": "files",
    "addresses": {"admin": "127.0.0.1"},
    "paths": {"config": "/etc/envoy"},
    "envoy": {
        "admin_port": 9901,
        "log_level": "info",
        "log_format": "[%l] %v",
        "concurrency": 2,
        "drain_time": "20s",
        "args": ["--component-log-level", "http:debug"],
    },
    "bootstrap_patch": {},
}


def source(file: str) -> dict[str, Any]:
    path = {"path": f"/etc/envoy/{file}", "watched_directory": {"path": "/etc/envoy"}}
    return {"path_config_source": path, "resource_api_version": "V3"}


def test_bootstrap() -> None:
    assert bootstrap(PROXY) == {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
        "dynamic_resources": {"cds_config": source("cds.yaml"), "lds_config": source("lds.yaml")},
    }


def test_the_patch_comes_last() -> None:
    found = bootstrap({**PROXY, "bootstrap_patch": {"admin": None, "stats_flush_interval": "1s"}})
    assert "admin" not in found
    assert found["stats_flush_interval"] == "1s"


def test_arguments() -> None:
    assert arguments(PROXY, "a-1") == [
        *("--config-path", "/etc/envoy/bootstrap.yaml"),
        *("--service-cluster", "a"),
        *("--service-node", "a-1"),
        *("--log-level", "info"),
        *("--log-format", "[%l] %v"),
        *("--concurrency", "2"),
        *("--drain-time-s", "20"),
        *("--file-flush-interval-msec", "1000"),
        "--disable-hot-restart",
        "--reject-unknown-dynamic-fields",
        *("--component-log-level", "http:debug"),
    ]


@pytest.mark.parametrize(("drain_time", "seconds"), [("0s", "1"), ("0.4s", "1"), ("1.6s", "2"), ("90s", "90")])
def test_envoy_drains_in_whole_seconds(drain_time: str, seconds: str) -> None:
    found = arguments({**PROXY, "envoy": {**PROXY["envoy"], "drain_time": drain_time}}, "a")
    assert found[found.index("--drain-time-s") + 1] == seconds
