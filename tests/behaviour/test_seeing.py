"""What a mesh shows of itself: access logs, traces, metrics."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin
from ansible_collections.sidecar.mesh.plugins.module_utils.probes import load
from behaviour.certificates import Authority
from behaviour.envoys import FAIL, Answer, Item, Mesh, call, get, running, send, statuses
from behaviour.machine import ROOT, loopback, wait_until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
import grpc

COLLECTOR_PORT = 4317
EXPORT = "opentelemetry.proto.collector.trace.v1.TraceService"

# Access logs

LOGS = """
services:
  - {name: web, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
  - {name: queue, port: 9000, protocol: tcp, sidecar: false}
  - {name: nowhere, port: 9, discovery: static, endpoints: [{address: 127.0.0.1}]}
front_proxies:
  - &front
    name: as-text
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: queue}]
    routes: [{prefix: /gone, service: nowhere, retries: 0}, {grpc: api.Echo, service: echo}, {prefix: /, service: web}]
    access_log:
      fields: [method, path, status, upstream_cluster, peer]
      extra_fields: {tenant: "%REQ(X-TENANT)%", user: "%REQ(X-USER)%"}
  - <<: *front
    name: as-json
    listeners: [{port: FRONT3}]
    access_log:
      format: json
      fields: [path, status, attempts, user_agent]
      extra_fields: {user: "%REQ(X-USER)%"}
  - <<: *front
    name: sampled
    listeners: [{port: FRONT4}]
    access_log: {format: json, fields: [path, status], sample: 20}
  - <<: *front
    name: errors-only
    listeners: [{port: FRONT5}]
    access_log: {format: json, fields: [path, status, flags, grpc_status], sample: 0}
    routes:
      - {prefix: /gone, service: nowhere, retries: 0}
      - {grpc: api.Echo, service: echo}
      - {regex: /fine|/teapot|/broken, service: web}
  - {<<: *front, name: silent, listeners: [{port: FRONT6}], access_log: none}
"""


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("logs"), LOGS) as mesh:
        yield mesh


def entries(mesh: Mesh, name: str) -> list[Item]:
    return [json.loads(line) for line in mesh.log(name).splitlines() if line.startswith("{")]


def test_a_text_log_has_the_fields_that_were_chosen(logs: Mesh) -> None:
    get(logs.front(), "/chosen?a=b", {"x-user": "eve mallory"})
    line = f"listener=front_{logs.ports['FRONT']} method=GET path=/chosen?a=b status=200 upstream_cluster=web peer="
    found = wait_until(lambda: [one for one in logs.log("as-text-1").splitlines() if "/chosen" in one], "it is logged")
    assert re.fullmatch(re.escape(line) + r"127\.0\.0\.1:\d+ tenant=- user=eve mallory", found[0])
    send(logs.front("2"), b"x")
    line = f"listener=front_{logs.ports['FRONT2']} method=- path=- status=0 upstream_cluster=queue peer=127.0.0.1:"
    wait_until(lambda: line in logs.log("as-text-1"), "so does the log of TCP")


def test_a_json_log_has_the_fields_that_were_chosen(logs: Mesh) -> None:
    get(logs.front("3"), "/chosen", {"user-agent": 'a "quoted" one'})
    found = wait_until(lambda: entries(logs, "as-json-1"), "it is logged")
    assert found == [
        {
            "listener": f"front_{logs.ports['FRONT3']}",
            "path": "/chosen",
            "status": 200,
            "attempts": 1,
            "user_agent": 'a "quoted" one',
            "user": None,
        }
    ]


def test_a_sampled_log_has_its_share_and_every_error(logs: Mesh) -> None:
    assert statuses(logs.front("4"), 300, "/fine") == {200: 300}
    assert statuses(logs.front("4"), 20, "/gone") == {503: 20}

    def count(status: int) -> int:
        return sum(entry["status"] == status for entry in entries(logs, "sampled-1"))

    wait_until(lambda: count(503) == 20, "every error is logged")
    assert 25 <= count(200) <= 105  # 60 of 300, five standard deviations


def test_a_log_of_errors_has_nothing_else(logs: Mesh) -> None:
    front, web = logs.front("5"), logs.applications["web-1"]
    assert get(front, "/fine").status == 200
    web.answer = lambda path: {"/teapot": 418, "/broken": 500}.get(path, 200)
    assert [get(front, path).status for path in ("/teapot", "/broken", "/gone", "/unknown")] == [418, 500, 503, 404]
    with grpc.insecure_channel(front) as channel:
        assert call(channel)[1] == "echo-1"
        with pytest.raises(grpc.RpcError):
            call(channel, FAIL)
    found = wait_until(
        lambda: len(entries(logs, "errors-only-1")) == 4 and entries(logs, "errors-only-1"), "all errors"
    )
    assert [(entry["path"], entry["status"], entry["flags"], entry["grpc_status"]) for entry in found] == [
        ("/broken", 500, "-", None),
        ("/gone", 503, "UF", None),
        ("/unknown", 404, "NR", None),
        (FAIL, 200, "-", "FailedPrecondition"),
    ]
    assert get(logs.front("6"), "/unlogged").status == 200
    assert "/unlogged" not in logs.log("silent-1")


# Traces


class Collector:
    """Keeps the spans it is sent, by OTLP over gRPC or over HTTP."""

    def __init__(self, protocol: str) -> None:
        self.address = loopback()
        self.spans: list[Item] = []
        self.stop = {"grpc": self._serve_grpc, "http": self._serve_http}[protocol]()

    def of(self, trace: str, count: int) -> list[Item]:
        """The spans of a trace, as soon as there are so many."""

        def enough() -> list[Item]:
            found = [span for span in list(self.spans) if span["trace"] == trace]
            return found if len(found) >= count else []

        spans: list[Item] = wait_until(enough, f"{count} spans of one trace", 15)
        return spans

    def _take(self, body: bytes) -> bytes:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            attributes = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [_span(attributes["service.name"], span) for span in scope.spans]
        return b""

    def _serve_grpc(self) -> Callable[[], None]:
        def export(request: bytes, _context: grpc.ServicerContext) -> bytes:
            return self._take(request)

        handler = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(EXPORT, handler)])
        server.add_insecure_port(f"{self.address}:{COLLECTOR_PORT}")
        server.start()
        return lambda: server.stop(None).wait()

    def _serve_http(self) -> Callable[[], None]:
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                assert self.headers["transfer-encoding"] == "chunked"
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                wanted = (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
                self.send_response(200 if wanted else 404)
                self.send_header("content-length", "0")
                self.end_headers()
                if wanted:
                    collector._take(body)

            def log_message(self, *_rest: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer((self.address, COLLECTOR_PORT), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

        def stop() -> None:
            server.shutdown()
            server.server_close()

        return stop


def _span(service: str, span: Any) -> Item:
    attributes = {item.key: item.value.string_value for item in span.attributes}
    return {
        "service": service,
        "kind": span.kind,
        "trace": span.trace_id.hex(),
        "id": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "status": attributes.get("http.status_code"),
    }


TRACED = """
services:
  - {name: a, port: 8081, upstreams: [{service: b, port: 9001}]}
  - {name: b, port: 8081, sidecar: {access_log: {format: json, fields: [trace_id]}}}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: a}]}
settings:
  tracing: {host: %s, protocol: %s, port: 4317, sampling: %s}
"""
SERVER, CLIENT = 2, 3


@contextlib.contextmanager
def traced(folder: Path, sampling: float, protocol: str = "grpc") -> Iterator[tuple[Mesh, Collector]]:
    collector = Collector(protocol)
    try:
        with running(folder, TRACED % (collector.address, protocol, sampling)) as mesh:
            yield mesh, collector
    finally:
        collector.stop()


def parent(answer: Answer) -> tuple[str, str, str]:
    """Trace, span and flags that an application was told."""
    _version, trace, span, flags = answer.seen["headers"]["traceparent"].split("-")
    return trace, span, flags


def called(flags: str) -> dict[str, str]:
    """Headers of a caller with a trace of its own."""
    return {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-{flags}"}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_is_one_trace_over_all_hops(tmp_path: Path, protocol: str) -> None:
    with traced(tmp_path, 100, protocol) as (mesh, collector):
        at_a = get(mesh.front())
        # As an application does that passes on what it was told.
        at_b = get(mesh.at("a-1", 9001), "/", {"traceparent": at_a.seen["headers"]["traceparent"]})
        trace, span, _flags = parent(at_b)
        by_id = {span["id"]: span for span in collector.of(trace, 5)}
        way = [by_id[span]]
        while way[-1]["parent"]:
            way.append(by_id[way[-1]["parent"]])
        hops = [("b", SERVER), ("a", CLIENT), ("a", SERVER), ("front", CLIENT), ("front", SERVER)]
        assert [(span["service"], span["kind"]) for span in way] == hops
        assert {span["status"] for span in way} == {"200"}
        assert parent(at_a)[:2] == (trace, way[2]["id"])
        logged = wait_until(lambda: entries(mesh, "b-1"), "the log tells")
        assert [entry["trace_id"] for entry in logged] == [trace]


def test_a_share_of_the_traces_is_sampled_and_callers_choices_are_followed(tmp_path: Path) -> None:
    with traced(tmp_path, 20) as (mesh, collector):
        flags = [parent(get(mesh.front()))[2] for _request in range(200)]
        assert 12 <= flags.count("01") <= 68  # 40 of 200, five standard deviations
        sidecar = mesh.at("a-1", 9001)
        for where in (mesh.front(), sidecar):
            assert {parent(get(where, "/", called("01")))[2] for _request in range(10)} == {"01"}
            assert {parent(get(where, "/", called("00")))[2] for _request in range(10)} == {"00"}
        assert collector.of(parent(get(sidecar, "/", called("01")))[0], 2)


def test_nothing_is_sampled_but_what_a_caller_samples(tmp_path: Path) -> None:
    with traced(tmp_path, 0) as (mesh, collector):
        assert {parent(get(mesh.front()))[2] for _request in range(20)} == {"00"}
        trace, _span, flags = parent(get(mesh.front(), "/", called("01")))
        assert flags == "01"
        assert len(collector.of(trace, 3)) == len(collector.spans) == 3


def test_requests_do_not_miss_a_collector_that_is_away(tmp_path: Path) -> None:
    with running(tmp_path, TRACED % (loopback(), "grpc", 100)) as mesh:
        assert statuses(mesh.front(), 200) == {200: 200}


# Metrics

METRICS = """
services:
  - {name: web, port: 8081, health_check: {type: http, path: /, interval: 100ms}, discovery: eds}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: web}], overload: {max_connections: 2}}
settings: {stats: %s}
"""


def fetch(where: str, path: str, method: str = "GET") -> tuple[int, str]:
    host, _rest, port = where.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=10)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def test_the_metrics_listener_shows_two_pages_whatever_the_load(tmp_path: Path) -> None:
    with running(tmp_path, METRICS % "dashboards") as mesh:
        where = mesh.at("front-1", 9902)
        assert get(mesh.front()).status == 200
        status, text = fetch(where, "/stats/prometheus")
        assert status == 200
        assert re.search(r'^envoy_cluster_upstream_rq_total\{envoy_cluster_name="web"\} 1$', text, re.MULTILINE)
        status, text = fetch(where, "/config_versions")
        assert status == 200
        versions = admin.file_versions({p.name: p.read_text() for p in mesh.config("front-1").glob("*.yaml")})
        shown = {name: admin.accepted_version(_texts(text), name) for name in versions}
        assert shown == versions

        host, _rest, port = mesh.front().rpartition(":")
        with contextlib.ExitStack() as stack:
            for _number in range(2):
                connection = http.client.HTTPConnection(host, int(port), timeout=10)
                stack.callback(connection.close)
                connection.request("GET", "/")
                assert connection.getresponse().read()
            with pytest.raises((ConnectionResetError, http.client.RemoteDisconnected)):
                get(mesh.front())
            assert fetch(where, "/stats/prometheus")[0] == 200

        for path in (
            "/",
            "/quitquitquit",
            "/config_dump",
            "/stats",
            "/stats/prometheus/../../config_dump",
            "/clusters",
        ):
            assert fetch(where, path)[0] == 404, path
        for path in ("/stats/prometheus", "/config_versions", "/quitquitquit"):
            assert fetch(where, path, "POST")[0] == 404, path
        assert get(mesh.front()).status == 200


def _texts(page: str) -> dict[str, str]:
    return {name: value.strip('"') for name, _rest, value in (line.partition(": ") for line in page.splitlines())}


def test_what_this_collection_reads_is_kept(tmp_path: Path) -> None:
    """The pages that plugins ask for name the same statistics, whatever is kept."""
    pages = [f"/stats?filter={admin._STATS}", "/stats?filter=downstream_(cx_active|rq_active|rq_total)$"]
    pages.append(r"/stats?filter=^cluster\.web\.membership_healthy$")
    found = []
    for keep in ("all", "dashboards"):
        with running(tmp_path / keep, METRICS % keep) as mesh:
            get(mesh.front())
            wait_until(lambda mesh=mesh: mesh.stat("front-1", "cluster.web.membership_healthy") == 1, "it is healthy")
            texts = [admin.request(mesh.admin("front-1"), page) for page in pages]
            names = [{line.partition(": ")[0] for line in text.splitlines()} for text in texts]
            own = mesh.ports["FRONT"]
            found.append(
                [{re.sub(rf"\b(127[.\d]+_|front_)({own}|9902)\b", "front", name) for name in page} for page in names]
            )
            assert all(found[-1])
            assert load(texts[1]).requests >= 0
    assert found[0] == found[1]


MANY = 200


def test_statistics_for_dashboards_take_less_memory(tmp_path: Path) -> None:
    used = {}
    for keep in ("all", "dashboards"):
        services = [
            {
                "name": f"s{number}",
                "port": 80,
                "discovery": "static",
                "endpoints": [{"address": "127.0.0.1", "port": 9}],
            }
            for number in range(MANY)
        ]
        routes = [{"prefix": f"/{service['name']}/", "service": service["name"]} for service in services]
        front = {"name": "front", "listeners": [{"port": "FRONT"}], "routes": routes}
        inventory = json.dumps({"services": services, "front_proxies": [front], "settings": {"stats": keep}})
        with running(tmp_path / keep, inventory.replace('"FRONT"', "FRONT")) as mesh:
            used[keep] = int(json.loads(admin.request(mesh.admin("front-1"), "/memory"))["allocated"])
    assert (used["all"] - used["dashboards"]) / MANY > 12_000, used


WATCHED = """
services:
  - {name: web, port: 8081, discovery: eds, outlier_detection: true, circuit_breakers: 100}
  - {name: out, port: 8443, tls: {server_name: a.test}, discovery: static, endpoints: [{address: 127.0.0.1}]}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, tls: served}]
    routes: [{prefix: /out, service: out}, {prefix: /, service: web}]
  - {name: moved, listeners: [{port: FRONT3}], routes: [{prefix: /, service: web}], metrics: {port: 9100}}
  - {name: dark, listeners: [{port: FRONT4}], routes: [{prefix: /, service: web}], metrics: false}
settings: {ca_file: AUTHORITY, stats: {also: [upstream_cx_length_ms]}}
"""


def test_metrics_of_the_documentation_are_there(tmp_path: Path) -> None:
    """Those that users copy, on a mesh that keeps what it keeps by default, and one more."""
    named = set(re.findall(r"\benvoy_[a-z0-9_]+(?=[\[{ `])", (ROOT / "docs" / "observing.md").read_text()))
    authority = Authority(tmp_path, "authority")
    authority.issue(tmp_path / "certificates" / "served", "served", "localhost")
    with running(tmp_path, WATCHED.replace("AUTHORITY", str(authority.path))) as mesh:
        assert [get(mesh.front(), path).status for path in ("/", "/out")] == [200, 503]
        page = fetch(mesh.at("front-1", 9902), "/stats/prometheus")[1]
        assert fetch(mesh.at("moved-1", 9100), "/stats/prometheus")[0] == 200
        for gone in (mesh.at("moved-1", 9902), mesh.at("dark-1", 9902)):
            with pytest.raises(ConnectionRefusedError):
                fetch(gone, "/stats/prometheus")
    shown = set(re.findall(r"^(\w+)\{", page, re.MULTILINE))
    assert len(named) > 15
    assert named - shown == set()
    assert "envoy_cluster_upstream_cx_length_ms_bucket" in shown
    assert "envoy_cluster_upstream_cx_destroy" not in shown
