"""Bootstrap and command line."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.bootstrap import arguments, bootstrap, command
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

PROXY: dict[str, Any] = {
    "workload": "a",
    "zone": None,
    "delivery": "files",
    "stats": {"keep": "all", "also": []},
    "siblings": None,
    "addresses": {"admin": "127.0.0.1"},
    "paths": {"config": "/etc/envoy"},
    "envoy": {
        "admin_port": 9901,
        "log_level": "info",
        "log_format": "[%l] %v",
        "concurrency": 2,
        "drain_time": "20s",
        "overload": {"max_heap": 1073741824, "max_connections": 50000},
        "args": ["--component-log-level", "http:debug"],
    },
    "bootstrap_patch": {},
}


def source(file: str) -> dict[str, Any]:
    path = {"path": f"/etc/envoy/{file}", "watched_directory": {"path": "/etc/envoy"}}
    return {"path_config_source": path, "resource_api_version": "V3"}


def action(name: str, threshold: float) -> dict[str, Any]:
    trigger = {"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": threshold}}
    return {"name": f"envoy.overload_actions.{name}", "triggers": [trigger]}


MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors"
OVERLOAD = {
    "refresh_interval": "0.25s",
    "resource_monitors": [
        {
            "name": "envoy.resource_monitors.fixed_heap",
            "typed_config": {
                "@type": f"{MONITORS}.fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes": 1073741824,
            },
        },
        {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": f"{MONITORS}.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 50000,
            },
        },
    ],
    "actions": [action("shrink_heap", 0.95), action("stop_accepting_requests", 0.98)],
}


def test_bootstrap() -> None:
    assert bootstrap(PROXY) == {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
        "dynamic_resources": {"cds_config": source("cds.yaml"), "lds_config": source("lds.yaml")},
        "overload_manager": OVERLOAD,
    }


def kept(also: list[str], name: str) -> bool:
    """Whether a statistic is kept."""
    config = bootstrap({**PROXY, "stats": {"keep": "dashboards", "also": also}})["stats_config"]
    patterns = config["stats_matcher"]["inclusion_list"]["patterns"]
    prefixes = tuple(item["prefix"] for item in patterns if "prefix" in item)
    suffixes = tuple(item["suffix"] for item in patterns if "suffix" in item)
    return name.startswith(prefixes) or name.endswith(suffixes)


def test_statistics() -> None:
    assert "stats_config" not in bootstrap(PROXY)
    for name in (
        *("server.live", "listener_manager.lds.version_text", "cluster.shop.upstream_rq_5xx"),
        *(
            "http.front_443.downstream_rq_time",
            "cluster.shop.membership_healthy",
            "cluster.shop.upstream_cx_none_healthy",
        ),
    ):
        assert kept([], name), name
    for name in ("cluster.shop.upstream_cx_length_ms", "runtime.load_success", "cluster.shop.not_upstream_rq_5xx_else"):
        assert not kept([], name), name
    assert kept(["upstream_cx_length_ms"], "cluster.shop.upstream_cx_length_ms")


def test_siblings_are_there_before_any_file_is_read() -> None:
    from_model = build_model(
        [{"name": "a", "port": 80, "command": ["x"], "zones": ["x"], "discovery": "eds", "zone_aware": True}],
        [{"name": "f", "zones": ["x"], "listeners": [{"port": 80}], "routes": [{"prefix": "/", "service": "a"}]}],
        {"engine": "local"},
    )
    sidecar, front = from_model["proxies"]
    found = bootstrap(front)
    assert found["cluster_manager"] == {"local_cluster_name": "f"}
    assert [item["name"] for item in found["static_resources"]["clusters"]] == ["f"]
    assert not {"cluster_manager", "static_resources"} & set(bootstrap(sidecar))
    static = bootstrap({**front, "delivery": "static"})
    assert [item["name"] for item in static["static_resources"]["clusters"]] == ["a", "envoy_admin", "f"]
    assert "dynamic_resources" not in static


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


def test_a_zone_is_told_at_the_start() -> None:
    found = arguments({**PROXY, "zone": "x"}, "a-1")
    assert found[found.index("--service-zone") + 1] == "x"


@pytest.mark.parametrize(("drain_time", "seconds"), [("0s", "1"), ("0.4s", "1"), ("1.6s", "2"), ("90s", "90")])
def test_envoy_drains_in_whole_seconds(drain_time: str, seconds: str) -> None:
    found = arguments({**PROXY, "envoy": {**PROXY["envoy"], "drain_time": drain_time}}, "a")
    assert found[found.index("--drain-time-s") + 1] == seconds


def test_without_a_control_plane_nothing_is_asked_before_the_start() -> None:
    assert command({**PROXY, "control_plane": None}, "a-1") == ["envoy", *arguments(PROXY, "a-1")]
