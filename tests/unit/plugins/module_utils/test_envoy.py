"""Envoy's typed configurations."""

from __future__ import annotations

from ansible_collections.sidecar.mesh.plugins.module_utils.envoy import extension, socket_address, typed, watched_file


def test_typed() -> None:
    assert typed("a.v3.B", c=1) == {"@type": "type.googleapis.com/a.v3.B", "c": 1}
    assert extension("a.b", "a.v3.B", c=1) == {
        "name": "a.b",
        "typed_config": {"@type": "type.googleapis.com/a.v3.B", "c": 1},
    }


def test_addresses_and_files() -> None:
    assert socket_address("127.0.0.1", 80) == {"socket_address": {"address": "127.0.0.1", "port_value": 80}}
    assert watched_file("/etc/envoy", "cds.yaml") == {
        "path_config_source": {"path": "/etc/envoy/cds.yaml", "watched_directory": {"path": "/etc/envoy"}},
        "resource_api_version": "V3",
    }
