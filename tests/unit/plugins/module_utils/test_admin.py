"""What a running Envoy says about itself, from answers of a small server that stands in for it."""

from __future__ import annotations

import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin

STATS = """\
cluster.service-b.update_failure: 0
cluster.service-b.update_rejected: 1
cluster.service-b.version_text: "0123456789ab"
cluster_manager.cds.update_failure: 2
cluster_manager.cds.update_rejected: 3
cluster_manager.cds.version_text: "aaaaaaaaaaaa"
cluster_manager.warming_clusters: 0
http.egress_8788.rds.egress_8788.update_failure: 0
http.egress_8788.rds.egress_8788.update_rejected: 0
http.egress_8788.rds.egress_8788.version_text: "bbbbbbbbbbbb"
listener_manager.lds.update_rejected: 0
listener_manager.lds.version_text: ""
listener_manager.total_listeners_warming: 0
listener.0.0.0.0_443.server_ssl_socket_factory.sds.certs.version_text: "cccccccccccc"
"""


class Envoy(http.server.ThreadingHTTPServer):
    """Answers by path; keeps the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, str] = {}
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.admin = f"127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Envoy

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answers.get(self.path.partition("?")[0], "").encode())

    do_POST = do_GET  # noqa: N815 - http.server wants this name

    def log_message(self, *_rest: object) -> None:
        pass


@pytest.fixture
def envoy() -> Iterator[Envoy]:
    server = Envoy()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def stats(text: str = STATS) -> dict[str, str]:
    lines = (line.partition(": ") for line in text.splitlines())
    return {name: value.strip('"') for name, _rest, value in lines}


def test_requests(envoy: Envoy) -> None:
    envoy.answers["/ready"] = "LIVE\n"
    assert admin.request(envoy.admin, "/ready") == "LIVE\n"
    admin.request(envoy.admin, "/healthcheck/fail", "POST")
    assert envoy.requests == ["GET /ready", "POST /healthcheck/fail"]
    assert admin.runs(envoy.admin)


def test_nobody_answers() -> None:
    where = nobody()
    assert not admin.runs(where)
    with pytest.raises(admin.UnreachableError, match=f"^{where}: .*refused"):
        admin.request(where, "/ready")


def test_subscription_stats_have_all_that_is_asked_for(envoy: Envoy) -> None:
    envoy.answers["/stats"] = STATS
    assert admin.subscription_stats(envoy.admin) == stats()
    ((_rest, _rest, pattern),) = [request.partition("filter=") for request in envoy.requests]
    assert [name for name in stats() if not re.search(pattern, name)] == []


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("cds.yaml", "aaaaaaaaaaaa"),
        ("lds.yaml", ""),
        ("rds.egress_8788.yaml", "bbbbbbbbbbbb"),
        ("eds.service-b.yaml", "0123456789ab"),
        ("sds.certs.yaml", "cccccccccccc"),
        ("rds.egress_878.yaml", None),
        ("rds.gress_8788.yaml", None),
        ("eds.b.yaml", None),
        ("eds.service-bb.yaml", None),
        ("bootstrap.yaml", None),
    ],
)
def test_accepted_versions(name: str, version: str | None) -> None:
    assert admin.accepted_version(stats(), name) == version


def test_versions_of_files() -> None:
    files = {
        "cds.yaml": "resources: []\nversion_info: 0a1b2c3d4e5f\n",
        "lds.yaml": "resources:\n- name: a\n  version_info: aaaaaaaaaaaa\nversion_info: '012345678901'\n",
        "rds.a.yaml": "version_info: ''\n",
        "bootstrap.yaml": "admin: {}\n",
        "broken.yaml": "\0",
    }
    assert admin.file_versions(files) == {"cds.yaml": "0a1b2c3d4e5f", "lds.yaml": "012345678901"}


ACCEPTED = {"cds.yaml": "aaaaaaaaaaaa", "rds.egress_8788.yaml": "bbbbbbbbbbbb"}


@pytest.mark.parametrize(
    ("changes", "versions", "late"),
    [
        ({}, ACCEPTED, []),
        ({}, {**ACCEPTED, "cds.yaml": "dddddddddddd"}, ["cds.yaml"]),
        ({}, {**ACCEPTED, "lds.yaml": "dddddddddddd"}, ["lds.yaml"]),
        (
            {},
            {"rds.egress_8788.yaml": "dddddddddddd", "eds.service-b.yaml": "e"},
            ["eds.service-b.yaml", "rds.egress_8788.yaml"],
        ),
        # Nobody has subscribed to it.
        ({}, {**ACCEPTED, "rds.egress_1.yaml": "dddddddddddd"}, []),
        ({"cluster_manager.warming_clusters": "1"}, ACCEPTED, ["cds.yaml"]),
        ({"listener_manager.total_listeners_warming": "2"}, ACCEPTED, ["lds.yaml"]),
    ],
)
def test_pending(changes: dict[str, str], versions: dict[str, str], late: list[str]) -> None:
    assert admin.pending({**stats(), **changes}, versions) == late


def test_pending_before_anything_was_read() -> None:
    fresh = {"cluster_manager.cds.version_text": "", "listener_manager.lds.version_text": ""}
    assert admin.pending(fresh, {"cds.yaml": "a", "lds.yaml": "b", "rds.x.yaml": "c"}) == ["cds.yaml", "lds.yaml"]


def test_nothing_is_pending_where_everything_is_in_the_bootstrap() -> None:
    assert admin.pending({}, {"cds.yaml": "a", "lds.yaml": "b", "sds.x.yaml": "c"}) == []


@pytest.mark.parametrize(
    ("name", "count"),
    [("cds.yaml", 5), ("lds.yaml", 0), ("eds.service-b.yaml", 1), ("rds.egress_8788.yaml", 0), ("eds.other.yaml", 0)],
)
def test_refusals(name: str, count: int) -> None:
    assert admin.refusals(stats(), name) == count


def test_reasons_of_refusals(envoy: Envoy) -> None:
    envoy.answers["/config_dump"] = json.dumps(
        {
            "configs": [
                {
                    "dynamic_listeners": [
                        {"name": "a", "error_state": {"details": "reason 2", "failed_configuration": {}}}
                    ]
                },
                {"dynamic_active_clusters": [{"cluster": {"name": "b"}}]},
                {"error_state": {"last_update_attempt": "now"}},
                {
                    "dynamic_route_configs": [
                        {"error_state": {"details": "reason 1"}},
                        {"error_state": {"details": "reason 1"}},
                    ]
                },
            ]
        }
    )
    assert admin.refusal_reasons(envoy.admin) == ["reason 1", "reason 2"]


def test_hosts_of_clusters(envoy: Envoy) -> None:
    def host(address: str) -> dict[str, object]:
        return {"address": {"socket_address": {"address": address, "port_value": 80}}}

    statuses = [{"name": "b", "host_statuses": [host("10.0.0.1"), host("10.0.0.2")]}, {"name": "empty"}]
    envoy.answers["/clusters"] = json.dumps({"cluster_statuses": statuses})
    assert admin.cluster_hosts(envoy.admin) == {"b": {"10.0.0.1:80", "10.0.0.2:80"}, "empty": set()}
    envoy.answers["/clusters"] = "{}"
    assert admin.cluster_hosts(envoy.admin) == {}
