# SPDX-License-Identifier: GPL-3.0-or-later
"""The state machine: what a client is sent, when, and what is known of it afterwards."""

import pytest
from clients import Client, snap
from control_plane.encode import TYPE_URLS
from control_plane.streams import LAST, MAX_NAMES, Acknowledged, Ignored, Protocol, Refused, RequestError, Stream
from envoy.service.discovery.v3 import discovery_pb2

BOTH = pytest.mark.parametrize("protocol", ["delta", "sotw"])
MESH = "b=1 c=1 9001>b"


def change(client: Client, wanted: str) -> list[list[str]]:
    """Goes through a change; what the client was sent in each step that sent something."""
    client.stream.change(snap(wanted))
    found = []
    for step in range(LAST + 1):
        client.stream.allow(step)
        client.stream.hurry()  # not every client here asks for what its clusters need
        found.append(client.acknowledge_all())
    assert client.stream.is_done
    return [sent for sent in found if sent]


# What a client asks for


@BOTH
def test_clusters_and_listeners_come_without_being_named(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    assert client.ask("clusters") == ["clusters b=1 c=1"]
    assert client.ask("listeners") == ["listeners 9001=1"]


@BOTH
@pytest.mark.parametrize("kind", ["endpoints", "routes"])
def test_endpoints_and_routes_are_named(protocol: Protocol, kind: str) -> None:
    assert Client(protocol, MESH).ask(kind) == []


@BOTH
def test_only_what_is_named_comes(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    assert client.ask("endpoints", "b") == ["endpoints b=1"]
    client.acknowledge_all()
    assert change(client, "b=1.1 c=1.2 9001>b") == []


@BOTH
def test_the_wildcard_may_be_named(protocol: Protocol) -> None:
    assert Client(protocol, MESH).ask("clusters", "*") == ["clusters b=1 c=1"]


@BOTH
def test_clusters_may_be_named(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    assert client.ask("clusters", "c") == ["clusters c=1"]
    client.acknowledge_all()
    assert change(client, "b=2 c=1 9001>b") == []


@BOTH
def test_nothing_is_an_answer_too(protocol: Protocol) -> None:
    """An Envoy waits for its first clusters and listeners even where there are none."""
    client = Client(protocol, "")
    assert client.ask("clusters") == ["clusters"]
    assert client.acknowledge_all() == []
    assert client.stream.is_done


def test_delta_a_name_nobody_knows_is_said_to_be_gone_and_comes_once_it_is_there() -> None:
    client = Client("delta", MESH)
    assert client.ask("endpoints", "b", "x") == ["endpoints b=1 -x"]
    client.acknowledge_all()
    assert change(client, MESH + " x=1") == [["endpoints x=1"]]


def test_sotw_a_name_nobody_knows_is_left_out_and_comes_once_it_is_there() -> None:
    client = Client("sotw", MESH)
    assert client.ask("endpoints", "x") == []
    assert client.ask("endpoints", "b", "x") == ["endpoints b=1"]
    client.acknowledge_all()
    assert client.ask("listeners", "none") == ["listeners"]
    client.acknowledge_all()
    assert change(client, MESH + " x=1") == [["endpoints x=1"]]


@BOTH
def test_a_further_name_is_answered_alone(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    client.ask("endpoints", "b")
    client.acknowledge_all()
    assert client.ask("endpoints", "b", "c") == [{"delta": "endpoints b=1 c=1", "sotw": "endpoints c=1"}[protocol]]


@BOTH
def test_what_is_asked_for_again_is_sent_again(protocol: Protocol) -> None:
    """A cluster that warms again has forgotten its endpoints."""
    client = Client(protocol, MESH).start()
    assert client.ask("endpoints", "b", "c") == ["endpoints b=1 c=1"]
    assert client.acknowledge_all() == []


def test_sotw_an_acknowledgement_is_no_question() -> None:
    client = Client("sotw", MESH)
    client.ask("endpoints", "b", "c")
    client.answer("endpoints")
    assert client.take() == []


def test_delta_nothing_comes_of_what_was_unsubscribed() -> None:
    client = Client("delta", MESH).start()
    assert client.ask("endpoints", gone=("b", "phantom")) == []
    assert change(client, "b=1.2 c=1.2 9001>b") == [["endpoints c=2"]]
    assert client.ask("endpoints", "b") == ["endpoints b=2"]


def test_sotw_nothing_comes_of_what_was_unsubscribed() -> None:
    client = Client("sotw", MESH).start()
    assert client.ask("endpoints", "c") == []
    assert change(client, "b=1.2 c=1.2 9001>b") == [["endpoints c=2"]]
    assert client.ask("endpoints", "b", "c") == ["endpoints b=2"]


def test_delta_a_name_beside_the_wildcard_is_answered_when_it_goes() -> None:
    client = Client("delta", MESH)
    client.ask("clusters", "*", "b", "x")
    client.acknowledge_all()
    assert client.ask("clusters", gone=("b", "x")) == ["clusters b=1 -x"]
    client.acknowledge_all()
    assert client.ask("clusters", "c", gone=("*",)) == ["clusters c=1"]
    client.acknowledge_all()
    assert change(client, "b=2 c=2") == [["clusters c=2"]]


def test_delta_without_names_left_there_is_no_wildcard() -> None:
    client = Client("delta", MESH)
    client.ask("clusters", "b")
    client.acknowledge_all()
    client.ask("clusters", gone=("b",))
    assert client.ask("clusters") == []
    assert change(client, "b=2 c=2") == []


def test_sotw_names_take_the_place_of_the_wildcard() -> None:
    """The example of the protocol's documentation."""
    client = Client("sotw", MESH)
    assert client.ask("clusters") == ["clusters b=1 c=1"]
    client.acknowledge_all()
    assert client.ask("clusters", "*", "b") == ["clusters b=1 c=1"]
    client.acknowledge_all()
    client.ask("clusters", "b")
    assert change(client, "b=1 c=2") == []
    client.ask("clusters")
    assert change(client, "b=2 c=2") == []


# What is sent, and when


def test_delta_only_what_changed() -> None:
    client = Client("delta", MESH).start()
    assert change(client, "b=1 c=2 9001>b") == [["clusters c=2", "endpoints c=1"]]
    assert change(client, "b=1 c=2 9001>c") == [["routes 9001=c"]]
    assert change(client, "b=1.5 c=2 9001>c") == [["endpoints b=5"]]
    assert change(client, "b=1.5 c=2 9001>c") == []


def test_sotw_clusters_and_listeners_are_sent_whole() -> None:
    client = Client("sotw", MESH).start()
    assert change(client, "b=1 c=2 9001>b") == [["clusters b=1 c=2", "endpoints c=1"]]
    assert change(client, "b=1.5 c=2 9001>c") == [["endpoints b=5"], ["routes 9001=c"]]


def test_make_before_break() -> None:
    client = Client("delta", MESH).start()
    client.stream.change(snap("b=1 d=1 9001>d 9002>b"))
    assert client.take() == ["clusters d=1"]
    client.stream.allow(LAST)
    client.answer("clusters")
    assert client.take() == [], "its endpoints come first"
    assert client.ask("endpoints", "d") == ["endpoints d=1"]
    client.answer("endpoints")
    assert client.take() == ["listeners 9002=1"]
    client.answer("listeners")
    assert client.ask("routes", "9002") == ["routes 9002=b"]
    client.answer("routes")
    assert client.take() == ["routes 9001=d"]
    client.answer("routes")
    assert client.take() == ["clusters -c", "endpoints -c"]
    client.acknowledge_all()
    assert client.stream.is_done


def test_a_step_waits_until_it_is_allowed() -> None:
    client = Client("delta", MESH).start()
    client.stream.change(snap("b=1 c=1 9001>c 9002>b"))
    assert client.take() == []
    assert client.stream.has_passed(0)
    assert not client.stream.has_passed(1)
    client.stream.allow(1)
    assert client.take() == ["listeners 9002=1"]
    assert not client.stream.has_passed(1)


def test_a_client_that_never_asks_for_endpoints_holds_up_nobody_for_ever() -> None:
    client = Client("delta", MESH).start()
    client.stream.change(snap("b=1 d=1 9001>d"))
    client.stream.allow(LAST)
    client.acknowledge_all()
    assert not client.stream.has_passed(0)
    client.stream.hurry()
    assert client.take() == ["routes 9001=d"]


def test_a_newer_change_takes_the_place_of_the_rest() -> None:
    client = Client("delta", MESH).start()
    client.stream.change(snap("b=1 d=1 9001>d"))
    assert client.take() == ["clusters d=1"]
    client.stream.change(snap("b=1 c=1 9001>b"))
    client.stream.allow(LAST)
    assert client.acknowledge_all() == ["clusters -d"]
    assert client.stream.is_done


def test_endpoints_are_new_at_once_in_the_middle_of_a_change() -> None:
    client = Client("delta", MESH).start()
    old, new = snap("b=1 c=1.7 d=1 9001>d"), snap("b=1.3 c=1.7 d=1 9001>d")
    client.stream.change(old)
    assert client.take() == ["clusters d=1"]
    client.stream.refresh(old, new)
    assert client.take() == ["endpoints b=3"], "those of c belong to a later step"
    client.stream.allow(LAST)
    client.acknowledge_all()
    assert client.ask("endpoints", "d") == ["endpoints d=1"]
    assert client.acknowledge_all() == ["endpoints c=7", "routes 9001=d"]
    assert client.stream.is_done


@BOTH
def test_whoever_never_answers_has_one_response_of_each_type_on_its_way(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    assert client.ask("clusters") == ["clusters b=1 c=1"]
    for number in range(2, 100):
        client.stream.change(snap(f"b={number} c=1 9001>b"))
        assert client.take() == []
    client.stream.allow(LAST)
    client.stream.hurry()
    client.answer("clusters")
    assert client.take() == [{"delta": "clusters b=99", "sotw": "clusters b=99 c=1"}[protocol]]


# Nonces, refusals


@BOTH
def test_an_acknowledgement_is_a_fact(protocol: Protocol) -> None:
    client = Client(protocol, MESH)
    client.ask("clusters")
    version = client.unanswered["clusters"].version
    assert client.answer("clusters") == [Acknowledged("clusters", version)]


@BOTH
@pytest.mark.parametrize("nonce", ["", "0", "garbage"])
def test_another_nonce_is_no_answer(protocol: Protocol, nonce: str) -> None:
    client = Client(protocol, MESH)
    client.ask("clusters")
    assert client.answer("clusters", nonce=nonce) == []
    client.stream.change(snap("b=2"))
    client.stream.allow(LAST)
    assert client.take() == []


def test_delta_a_subscription_counts_whatever_its_nonce() -> None:
    client = Client("delta", MESH)
    client.stream.receive(
        discovery_pb2.DeltaDiscoveryRequest(
            type_url=TYPE_URLS["endpoints"], resource_names_subscribe=["b"], response_nonce="of another stream"
        )
    )
    assert client.take() == ["endpoints b=1"]


def test_sotw_a_request_with_an_old_nonce_counts_for_nothing() -> None:
    client = Client("sotw", MESH).start()
    stale = discovery_pb2.DiscoveryRequest(type_url=TYPE_URLS["endpoints"], resource_names=["b"], response_nonce="0")
    assert client.stream.receive(stale) == []
    assert client.take() == []
    assert client.stream.subscriptions["endpoints"].names == {"b", "c"}


@BOTH
def test_what_was_refused_is_not_sent_again_until_it_changes(protocol: Protocol) -> None:
    client = Client(protocol, MESH).start()
    client.stream.change(snap("b=2 c=1 9001>b"))
    client.stream.allow(LAST)
    client.take()
    version = client.unanswered["clusters"].version
    text = "Error adding/updating cluster(s) b: no such thing"
    assert client.answer("clusters", error=text) == [Refused("clusters", version, ["b"], text)]
    client.acknowledge_all()
    assert client.stream.is_stopped
    assert not client.stream.is_done
    assert client.stream.has_passed(LAST)
    assert client.stream.subscriptions["clusters"].held["b"].version == "1"
    client.stream.change(snap("b=2 c=1 9001>b"))
    client.stream.allow(LAST)
    assert client.acknowledge_all() == []
    assert change(client, "b=3 c=1 9001>b")[0][0].startswith("clusters b=3")
    assert not client.stream.is_stopped


def test_a_refusal_ends_the_steps() -> None:
    client = Client("delta", MESH).start()
    client.stream.change(snap("b=1 c=1 d=1 9001>d"))
    client.stream.allow(LAST)
    client.take()
    client.answer("clusters", error="Error adding/updating cluster(s) d: bad")
    assert client.acknowledge_all() == [], "a route to a cluster that is not there"
    client.stream.change(snap("b=2 c=1 d=1 9001>d"))
    client.stream.allow(LAST)
    assert client.acknowledge_all() == []
    assert change(client, "b=1 c=1 9001>c") == [["routes 9001=c"]]


@BOTH
def test_what_was_refused_does_not_keep_the_rest_back(protocol: Protocol) -> None:
    client = Client(protocol, "b=1 c=1")
    client.ask("clusters")
    client.answer("clusters", error="Error adding/updating cluster(s) b: bad")
    assert client.acknowledge_all() == ["clusters c=1"]
    assert client.stream.subscriptions["clusters"].held.keys() == {"c"}


def test_sotw_the_old_one_stands_in_for_what_was_refused() -> None:
    """Without it, the cluster would be gone."""
    client = Client("sotw", "b=1 c=1").start()
    client.stream.change(snap("b=2 c=2"))
    client.stream.allow(LAST)
    client.take()
    client.answer("clusters", error="Error adding/updating cluster(s) b: bad")
    assert client.take()[-1] == "clusters b=1 c=2"


@BOTH
def test_a_refusal_without_names_is_of_all_that_was_new(protocol: Protocol) -> None:
    client = Client(protocol, MESH).start()
    client.stream.change(snap("b=1.2 c=1.2 9001>b"))
    client.stream.allow(LAST)
    client.take()
    (fact,) = client.answer("endpoints", error="malformed")
    assert isinstance(fact, Refused)
    assert fact.names == ["b", "c"]
    assert client.acknowledge_all() == []


@BOTH
def test_even_a_removal_that_is_refused_is_said_once(protocol: Protocol) -> None:
    client = Client(protocol, "b=1 c=1").start()
    client.stream.change(snap("b=1"))
    client.stream.allow(LAST)
    client.take()
    client.answer("clusters", error="no")
    assert [sent for sent in client.take() if sent.startswith("clusters")] == []


# Clients that come back


def test_delta_only_what_differs_comes_after_a_reconnection() -> None:
    client = Client("delta", "b=1 c=2 d=1 9001>d")
    assert client.ask("clusters", has={"b": "1", "c": "1", "x": "1"}) == ["clusters d=1"]
    assert client.ask("endpoints", "b", "c", "x", has={"b": "1", "c": "1", "x": "1"}) == []
    assert client.ask("listeners", has={"9001": "1"}) == []
    assert client.ask("routes", "9001", has={"9001": "x"}) == []
    assert client.stream.is_resumed
    assert client.acknowledge_all() == []
    client.stream.allow(LAST)
    assert client.ask("endpoints", "d") == ["endpoints d=1"]
    # The route goes to x until d is there, and x goes last.
    assert client.acknowledge_all() == [
        *("clusters c=2", "endpoints c=1"),
        "routes 9001=d",
        *("clusters -x", "endpoints -x"),
    ]
    assert client.stream.is_done


def test_delta_nothing_comes_where_nothing_differs() -> None:
    client = Client("delta", MESH)
    assert client.ask("clusters", has={"b": "1", "c": "1"}) == []
    assert client.ask("endpoints", "b", "c", has={"b": "1", "c": "1"}) == []
    assert client.ask("listeners", "*", has={"9001": "1"}) == []
    assert client.ask("routes", "9001", has={"9001": "b"}) == []
    client.stream.allow(LAST)
    assert client.acknowledge_all() == []
    assert client.stream.is_done


def test_sotw_clusters_do_not_come_where_the_version_is_the_same() -> None:
    version = Client("sotw", MESH).start().versions["clusters"]
    for known, expected in ((version, []), ("other", ["clusters b=1 c=1"])):
        client = Client("sotw", MESH)
        client.versions["clusters"] = known
        assert client.ask("clusters") == expected


# Garbage


@pytest.mark.parametrize(
    "type_url", ["", "x", "type.googleapis.com/", "type.googleapis.com/a b", "type.googleapis.com/" + "a" * 300]
)
def test_what_is_no_type_is_refused(type_url: str) -> None:
    for protocol, request in (("delta", discovery_pb2.DeltaDiscoveryRequest), ("sotw", discovery_pb2.DiscoveryRequest)):
        with pytest.raises(RequestError):
            Stream(protocol, snap(MESH)).receive(request(type_url=type_url))


@BOTH
def test_types_not_served_are_told_once_and_not_for_ever(protocol: Protocol) -> None:
    stream = Stream(protocol, snap(MESH))
    request = discovery_pb2.DeltaDiscoveryRequest if protocol == "delta" else discovery_pb2.DiscoveryRequest
    secret = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    assert stream.receive(request(type_url=secret)) == [Ignored(secret)]
    assert stream.receive(request(type_url=secret)) == []
    facts = [stream.receive(request(type_url=f"type.googleapis.com/a{number}")) for number in range(100)]
    assert sum(map(len, facts)) == 15
    assert stream.next_response() is None


@BOTH
def test_names_are_bounded(protocol: Protocol) -> None:
    with pytest.raises(RequestError, match="more than 10000 names"):
        Client(protocol, MESH).ask("endpoints", *map(str, range(MAX_NAMES + 1)))
