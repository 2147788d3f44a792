# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain data to protobuf: what is sent, its version, and what is wrong with it in words."""

import copy
import subprocess
import sys
from typing import Any

import pytest
from conftest import APP, COLLECTIONS
from control_plane import encode, snapshots
from control_plane.encode import TYPE_URLS, EncodeError
from mesh import HTTP2, cluster, endpoints, listener, routes


def test_every_kind() -> None:
    made = snapshots.snapshot(
        {
            "clusters": {"b": cluster("b")},
            "endpoints": {"b": endpoints("b", 80)},
            "listeners": {"in": listener("in", 8080)},
            "routes": {"in": routes("in", "b")},
        }
    )
    assert {kind: list(items) for kind, items in made.items()} == {
        "clusters": ["b"],
        "endpoints": ["b"],
        "listeners": ["in"],
        "routes": ["in"],
    }
    assert made["clusters"]["b"].needs == ("b",)
    assert (made["listeners"]["in"].needs, made["listeners"]["in"].port) == (("in",), 8080)
    assert encode.message("routes", made["routes"]["in"]).type_url == TYPE_URLS["routes"]


def test_the_type_may_be_named() -> None:
    plain = encode.encode("clusters", "b", cluster("b"))
    assert encode.encode("clusters", "b", {"@type": TYPE_URLS["clusters"], **cluster("b")}).value == plain.value
    with pytest.raises(EncodeError, match="clusters b: its type is not"):
        encode.encode("clusters", "b", {"@type": TYPE_URLS["listeners"], **cluster("b")})


def test_what_needs_endpoints_of_this_server() -> None:
    named = cluster("b", eds_cluster_config={"eds_config": {"ads": {}}, "service_name": "other"})
    file = cluster("b", eds_cluster_config={"eds_config": {"path_config_source": {"path": "/x"}}})
    assert encode.encode("clusters", "b", named).needs == ("other",)
    assert encode.encode("clusters", "b", file).needs == ()
    assert encode.encode("clusters", "b", {"name": "b", "type": "STATIC"}).needs == ()


def test_the_version_is_that_of_the_content() -> None:
    one, same, other = (cluster("b", connect_timeout=timeout) for timeout in ("1s", "1.0s", "2s"))
    versions = [encode.encode("clusters", "b", data).version for data in (one, same, other)]
    assert versions[0] == versions[1] != versions[2]
    assert all(len(version) == 16 and int(version, 16) for version in versions)


def test_what_is_shared_is_encoded_once() -> None:
    one = encode.encode("clusters", "b", cluster("b"))
    assert encode.encode("clusters", "b", copy.deepcopy(cluster("b"))) is one


def test_arguments_are_not_changed() -> None:
    data = listener("in", 80)
    before = repr(data)
    encode.encode("listeners", "in", data)
    assert repr(data) == before


SCRIPT = """
from control_plane.encode import encode
inner = {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"}
host = {"name": "v", "domains": ["*"], "typed_per_filter_config": {f"k{number}": inner for number in range(20)}}
kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
manager = {"@type": kind, "route_config": {"virtual_hosts": [host]}}
data = {"name": "l", "filter_chains": [{"filters": [{"name": "h", "typed_config": manager}]}]}
print(encode("listeners", "l", data).version)
"""


def test_every_replica_serves_the_same_bytes() -> None:
    """Maps have another order in every process."""
    path = {"PYTHONPATH": f"{APP}:{COLLECTIONS}"}
    runs = [
        subprocess.run([sys.executable, "-c", SCRIPT], env=path, capture_output=True, check=True) for _each in "123"
    ]
    assert len({run.stdout for run in runs}) == 1


def socket(kind: str, **fields: Any) -> dict[str, Any]:
    return {"transport_socket": {"typed_config": {"@type": kind, **fields}}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"typ": "EDS"}, 'Message type "envoy.config.cluster.v3.Cluster" has no field named "typ" at "Cluster".'),
        ({"lb_policy": "X"}, "Failed to parse lb_policy field: Invalid enum value X .*"),
        ({"connect_timeout": 5}, "Failed to parse connect_timeout field: Duration JSON value not a string: 5 .*"),
        (
            {"load_assignment": {"endpoints": [{"x": 1}]}},
            '.* no field named "x" at "Cluster.load_assignment.endpoints.*',
        ),
        (socket(HTTP2, x=1), '.* no field named "x" at "Cluster.transport_socket.*'),
        (socket(f"{HTTP2}X"), ".*Can not find message descriptor by type_url.*"),
        (socket("type.googleapis.com/os.x"), "@type .*os.x' is not a type of Envoy's API"),
        (socket("type.googleapis.com/envoy.x.v3.X"), ".* is not a type of Envoy's API"),
        (socket(""), ".* is not a type of Envoy's API"),
        ({"name": "c"}, "its field name is 'c'"),
        ({"name": {1}}, "Object of type set is not JSON serializable"),
        ({"eds_cluster_config": 5}, ".*eds_cluster_config.*"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], message: str) -> None:
    with pytest.raises(EncodeError, match=rf"^clusters b: {message}$"):
        encode.encode("clusters", "b", {"name": "b", **data})


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_what_is_no_dictionary_is_refused(data: Any) -> None:
    with pytest.raises(EncodeError):
        encode.encode("clusters", "b", data)


def test_difference() -> None:
    old = snapshots.snapshot({"clusters": {"b": cluster("b")}, "endpoints": {"b": endpoints("b", 1)}})
    moved = snapshots.snapshot({"clusters": {"b": cluster("b")}, "endpoints": {"b": endpoints("b", 2)}})
    other = snapshots.snapshot({"clusters": {"c": cluster("c")}, "endpoints": {"b": endpoints("b", 1)}})
    assert not snapshots.difference(old, old)
    assert snapshots.difference(old, moved) == snapshots.Difference({"endpoints": {"b"}}, {})
    assert snapshots.difference(old, other) == snapshots.Difference({"clusters": {"c"}}, {"clusters": {"b"}})
    assert snapshots.is_endpoints_only(old, moved)
    assert not snapshots.is_endpoints_only(old, other)
    assert not snapshots.is_endpoints_only(old, snapshots.snapshot({"clusters": {"b": cluster("b")}}))
    assert len({snapshots.version(each) for each in (old, moved, other)}) == 3
