"""Where requests land: every feature of the model, as traffic through real Envoys."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import admin
from ansible_collections.sidecar.mesh.plugins.module_utils.files import proxy_files
from ansible_collections.sidecar.mesh.plugins.module_utils.publishing import steps
from behaviour.envoys import (
    FAIL,
    NOT_SERVING,
    SERVING,
    Mesh,
    call,
    get,
    names,
    post,
    running,
    send,
    serve,
    statuses,
    swap,
    write,
)
from behaviour.machine import loopback, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Run = Callable[..., Mesh]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Run]:
    """Starts a mesh for one test; ``before`` may prepare its folder."""
    with contextlib.ExitStack() as stack:

        def start(inventory: str, before: Callable[[Path], object] = Path, *, kubelet: bool = False) -> Mesh:
            before(tmp_path)
            return stack.enter_context(running(tmp_path, inventory, kubelet=kubelet))

        yield start


# Discovery and load balancing

DISCOVERIES = """
services:
  - {name: web, port: 8081, replicas: 3, discovery: %s}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /, service: web}]}
settings: {dns: {refresh_rate: 200ms, jitter: 10ms}}
"""


@pytest.mark.parametrize("discovery", ["dns", "static", "eds"])
def test_every_discovery_spreads_requests_evenly_and_follows_a_change(mesh: Run, discovery: str) -> None:
    running_mesh = mesh(DISCOVERIES % discovery)
    front = running_mesh.front()
    assert names(front, 30) == {"web-1": 10, "web-2": 10, "web-3": 10}

    running_mesh.change((DISCOVERIES % discovery).replace("replicas: 3", "replicas: 2"))
    wait_until(lambda: set(names(front, 6)) == {"web-1", "web-2"}, "the third replica gets no requests")

    # The sidecar of the third was never stopped.
    running_mesh.change(DISCOVERIES % discovery)
    wait_until(lambda: len(names(front, 6)) == 3, "the third replica gets requests again")


@pytest.mark.parametrize("discovery", ["static", "eds"])
def test_envoy_sees_a_change_as_the_kubelet_makes_it(mesh: Run, discovery: str) -> None:
    """A link in the folder moves; the files themselves, which are links too, do not change."""
    inventory = DISCOVERIES % discovery
    running_mesh = mesh(inventory, kubelet=True)
    front = running_mesh.front()
    running_mesh.change(inventory.replace("replicas: 3", "replicas: 1"))
    wait_until(lambda: names(front, 6) == {"web-1": 6}, "endpoints are read again")
    running_mesh.change(
        inventory.replace("{prefix: /, service: web}", "{prefix: /, service: web, prefix_rewrite: /new}")
    )
    wait_until(lambda: get(front, "/").seen["path"] == "/new", "routes are read again")


def test_a_service_that_runs_elsewhere_is_called_at_its_endpoints(mesh: Run) -> None:
    addresses = [loopback(), loopback()]
    applications = [serve("http", address, 8081, address) for address in addresses]
    running_mesh = mesh(f"""
services:
  - name: static
    port: 8081
    discovery: static
    endpoints: [{{address: {addresses[0]}}}, {{address: {addresses[1]}}}]
  - {{name: eds, port: 80, discovery: eds, endpoints: [{{address: {addresses[0]}, port: 8081}}]}}
front_proxies:
  - name: front
    listeners: [{{port: FRONT}}]
    routes: [{{prefix: /eds, service: eds}}, {{prefix: /, service: static}}]
""")
    assert names(running_mesh.front(), 10) == dict.fromkeys(addresses, 5)
    assert names(running_mesh.front(), 4, "/eds") == {addresses[0]: 4}
    for application in applications:
        application.stop()


def test_a_resting_replica_gets_no_requests_by_any_discovery(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: by-dns, port: 8081, replicas: 2, sidecar: false}
  - {name: by-static, port: 8081, replicas: 2, sidecar: false, discovery: static}
  - {name: by-eds, port: 8081, replicas: 2, sidecar: false, discovery: eds}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes: [{prefix: /dns, service: by-dns}, {prefix: /static, service: by-static}, {prefix: /eds, service: by-eds}]
settings: {resting: [by-dns-2, by-static-1, by-eds-2]}
""")
    front = running_mesh.front()
    assert names(front, 8, "/dns") == {"by-dns-1": 8}
    assert names(front, 8, "/static") == {"by-static-2": 8}
    assert names(front, 8, "/eds") == {"by-eds-1": 8}


def test_hash_on_sticks_to_one_replica_for_each_value(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - {name: by-header, port: 8081, replicas: 4, sidecar: false, lb_policy: ring_hash, hash_on: {header: x-user}}
  - {name: by-cookie, port: 8081, replicas: 4, sidecar: false, lb_policy: maglev, hash_on: {cookie: session}}
  - {name: by-address, port: 8081, replicas: 4, sidecar: false}
  - {name: tcp, port: 9000, protocol: tcp, replicas: 4, sidecar: false, lb_policy: maglev, hash_on: {source_ip: true}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: tcp}]
    routes:
      - {prefix: /header, service: by-header}
      - {prefix: /cookie, service: by-cookie}
      - {prefix: /address, service: by-address}
    upstreams: [{service: by-address, lb_policy: maglev, hash_on: {source_ip: true}}]
""")
    front = running_mesh.front()
    for name, values in (("header", "x-user: {}"), ("cookie", "cookie: session={}")):
        header, _rest, value = values.partition(": ")
        owners = [names(front, 3, f"/{name}", {header: value.format(user)}) for user in range(20)]
        assert all(len(owner) == 1 for owner in owners)
        assert len({next(iter(owner)) for owner in owners}) > 1
    assert len(names(front, 10, "/address")) == 1
    assert len({send(running_mesh.front("2"), b"x") for _rest in range(10)}) == 1
    # Envoy hands out the cookie where it is missing.
    assert get(front, "/cookie").headers["set-cookie"].startswith("session=")


# Routes of a front proxy

ROUTES = """
services:
  - {name: one, port: 8081, sidecar: false}
  - {name: two, port: 8081, sidecar: false}
  - {name: three, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, https_redirect: true}]
    routes:
      - {path: /exact, service: two, prefix_rewrite: /rewritten}
      - {regex: "/items/[0-9]+", service: two, prefix_rewrite: /item}
      - {prefix: /headers, service: two, headers: [{name: x-exact, exact: "on"}]}
      - {prefix: /headers, service: three, headers: [{name: x-prefix, prefix: ab}, {name: x-absent, present: false}]}
      - {prefix: /headers, service: two, headers: [{name: x-regex, regex: "[0-9]+"}]}
      - {prefix: /headers, service: three, headers: [{name: x-present, present: true}]}
      - {grpc: api.Echo/Echo, service: echo}
      - {prefix: /long/, service: two, prefix_rewrite: /}
      - {prefix: /host, service: three, host_rewrite: other.example.com}
      - {prefix: /, service: one}
    virtual_hosts:
      - {name: shop, domains: [shop.example.com, "*.shop.example.com"], routes: [{prefix: /, service: three}]}
      - {name: blog, domains: [blog.example.com], routes: [{prefix: /posts, service: two}]}
"""


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("routes"), ROUTES) as running_mesh:
        yield running_mesh


@pytest.mark.parametrize(
    ("path", "headers", "service", "seen"),
    [
        ("/", {}, "one", "/"),
        ("/exact", {}, "two", "/rewritten"),
        ("/exact?a=b", {}, "two", "/rewritten?a=b"),
        ("/exact/more", {}, "one", "/exact/more"),
        ("/items/42", {}, "two", "/item"),
        ("/items/42x", {}, "one", "/items/42x"),
        ("/long/way", {}, "two", "/way"),
        ("/long/way?a=/long/", {}, "two", "/way?a=/long/"),
        ("/longer", {}, "one", "/longer"),
        ("/headers", {}, "one", "/headers"),
        ("/headers", {"x-exact": "on"}, "two", "/headers"),
        ("/headers", {"x-exact": "ON"}, "one", "/headers"),
        ("/headers", {"x-exact": "on "}, "two", "/headers"),
        ("/headers", {"x-prefix": "abc"}, "three", "/headers"),
        ("/headers", {"x-prefix": "abc", "x-absent": "1"}, "one", "/headers"),
        ("/headers", {"x-prefix": "xab"}, "one", "/headers"),
        ("/headers", {"x-regex": "123"}, "two", "/headers"),
        ("/headers", {"x-regex": "123a"}, "one", "/headers"),
        ("/headers", {"x-present": ""}, "three", "/headers"),
        ("/api.Echo/Echo", {}, "one", "/api.Echo/Echo"),
        ("/a//b/../c", {}, "one", "/a/c"),
        ("/", {"host": "shop.example.com"}, "three", "/"),
        ("/", {"host": "SHOP.example.com"}, "three", "/"),
        ("/", {"host": "shop.example.com:8080"}, "three", "/"),
        ("/", {"host": "my.shop.example.com"}, "three", "/"),
        ("/exact", {"host": "shop.example.com"}, "three", "/exact"),
        ("/posts/1", {"host": "blog.example.com"}, "two", "/posts/1"),
        ("/", {"host": "unknown.example.com"}, "one", "/"),
    ],
)
def test_where_a_request_lands(routes: Mesh, path: str, headers: dict[str, str], service: str, seen: str) -> None:
    answer = get(routes.front(), path, headers)
    assert (answer.status, answer.name, answer.seen["path"]) == (200, f"{service}-1", seen)


def test_grpc_routes_take_grpc_calls_of_their_method_only(routes: Mesh) -> None:
    with grpc.insecure_channel(routes.front()) as channel:
        assert call(channel) == (b"\n\x04echo", "echo-1")
        with pytest.raises(grpc.RpcError) as error:
            call(channel, FAIL)  # goes to an application without gRPC
        assert error.value.code() != grpc.StatusCode.FAILED_PRECONDITION


def test_a_virtual_host_answers_404_where_it_has_no_route(routes: Mesh) -> None:
    assert get(routes.front(), "/", {"host": "blog.example.com"}).status == 404


def test_the_host_is_passed_on_unless_it_is_rewritten(routes: Mesh) -> None:
    headers = {"host": "shop.example.com:8080"}
    assert get(routes.front(), "/", headers).seen["headers"]["host"] == "shop.example.com:8080"
    assert get(routes.front(), "/host").seen["headers"]["host"] == "other.example.com"


def test_https_redirect_keeps_host_and_path(routes: Mesh) -> None:
    answer = get(routes.front("2"), "/a?b=c", {"host": "shop.example.com"})
    assert (answer.status, answer.headers["location"]) == (301, "https://shop.example.com/a?b=c")


def test_headers_with_underscores_are_refused_at_the_border(routes: Mesh) -> None:
    assert get(routes.front(), "/", {"x_user": "root"}).status == 400


def test_escaped_slashes_do_not_pass_the_routes(routes: Mesh) -> None:
    answer = get(routes.front(), "/long%2fway")
    assert (answer.status, answer.headers["location"]) == (307, "/long/way")


# Egress

SHARED = """
services:
  - name: app
    port: 8081
    egress: {mode: shared, port: 15001}
    upstreams:
      - {service: by-name}
      - {service: by-host, match: {hosts: [billing.internal]}, host_rewrite: by-host, prefix_rewrite: /v2/}
      - {service: by-path, match: {hosts: [api.internal], prefix: /users/}, prefix_rewrite: /}
      - {service: by-header, match: {hosts: [api.internal], headers: [{name: x-version, exact: "2"}]}}
      - {service: by-rest, match: {hosts: [api.internal]}}
      - {service: own, port: 15002, prefix_rewrite: /own/}
      - {service: echo}
  - {name: by-name, port: 8081, sidecar: false}
  - {name: by-host, port: 8081, sidecar: false}
  - {name: by-path, port: 8081, sidecar: false}
  - {name: by-header, port: 8081, sidecar: false}
  - {name: by-rest, port: 8081, sidecar: false}
  - {name: own, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("shared"), SHARED) as running_mesh:
        yield running_mesh


@pytest.mark.parametrize(
    ("path", "headers", "service", "seen"),
    [
        ("/a", {"host": "by-name"}, "by-name", "/a"),
        ("/a", {"host": "by-name:80"}, "by-name", "/a"),
        ("/a", {"host": "by-name.default"}, "by-name", "/a"),
        ("/a", {"host": "by-name.default.svc"}, "by-name", "/a"),
        ("/a", {"host": "by-name.default.svc.cluster.local:8081"}, "by-name", "/a"),
        ("http://by-name/a", {"host": "by-name"}, "by-name", "/a"),
        ("http://by-name:8081/a?b=c", {"host": "by-name:8081"}, "by-name", "/a?b=c"),
        ("/a", {"host": "billing.internal"}, "by-host", "/v2/a"),
        ("http://billing.internal/a", {"host": "billing.internal"}, "by-host", "/v2/a"),
        ("/users/7", {"host": "api.internal"}, "by-path", "/7"),
        ("/users/7", {"host": "api.internal", "x-version": "2"}, "by-path", "/7"),
        ("/orders", {"host": "api.internal", "x-version": "2"}, "by-header", "/orders"),
        ("/orders", {"host": "api.internal", "x-version": "3"}, "by-rest", "/orders"),
    ],
)
def test_shared_egress(shared: Mesh, path: str, headers: dict[str, str], service: str, seen: str) -> None:
    answer = get(shared.at("app-1", 15001), path, headers)
    assert (answer.status, answer.name, answer.seen["path"]) == (200, f"{service}-1", seen)


def test_shared_egress_knows_no_other_hosts(shared: Mesh) -> None:
    assert get(shared.at("app-1", 15001), "/", {"host": "own"}).status == 403
    assert get(shared.at("app-1", 15001), "http://example.com/", {"host": "example.com"}).status == 403


def test_an_upstream_with_a_port_has_a_listener_of_its_own_beside_the_shared_one(shared: Mesh) -> None:
    answer = get(shared.at("app-1", 15002), "/a", {"host": "whatever"})
    assert (answer.name, answer.seen["path"]) == ("own-1", "/own/a")
    assert get(shared.at("app-1", 15001), "/", {"host": "billing.internal"}).seen["headers"]["host"] == "by-host"


def test_shared_egress_carries_grpc(shared: Mesh) -> None:
    options = [("grpc.default_authority", "echo.default.svc.cluster.local:8081")]
    with grpc.insecure_channel(shared.at("app-1", 15001), options) as channel:
        assert call(channel) == (b"\n\x04echo", "echo-1")


CHAIN = """
services:
  - name: a
    port: 8081
    sidecar: {port: 8786, admin_port: 9903, routes: [{prefix: /api/}, {path: /healthz}]}
    upstreams: [{service: b, port: 8788}, {service: queue, port: 9092}]
  - {name: b, port: 8082, replicas: 2, sidecar: {port: 8789, access_log: json}}
  - {name: queue, port: 9000, protocol: tcp, sidecar: {port: 9001}}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: queue}]
    routes: [{prefix: /, service: a}]
    access_log: json
"""


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("chain"), CHAIN) as running_mesh:
        yield running_mesh


def test_egress_per_upstream_reaches_the_upstreams_sidecars(chain: Mesh) -> None:
    before = [chain.stat(name, "http.ingress_8789.downstream_rq_total") for name in ("b-1", "b-2")]
    assert names(chain.at("a-1", 8788), 8) == {"b-1": 4, "b-2": 4}
    after = [chain.stat(name, "http.ingress_8789.downstream_rq_total") for name in ("b-1", "b-2")]
    assert [new - old for old, new in zip(before, after, strict=True)] == [4, 4]


def test_tcp_from_end_to_end(chain: Mesh) -> None:
    assert send(chain.at("a-1", 9092), b"hello") == b"queue-1:hello"
    assert send(chain.front("2"), bytes(range(256))) == b"queue-1:" + bytes(range(256))


def test_bodies_larger_than_the_buffers_pass_both_ways(chain: Mesh) -> None:
    body = bytes(range(256)) * 8192
    assert post(chain.front(), "/api/", body) == (200, body)
    assert post(chain.at("a-1", 8788), "/", body) == (200, body)


def test_an_ingress_lets_pass_its_routes_only(chain: Mesh) -> None:
    assert get(chain.front(), "/api/users").seen["path"] == "/api/users"
    asked = list(chain.applications["a-1"].paths)
    assert get(chain.front(), "/apiary").status == 404
    assert get(chain.at("a-1", 8786), "/metrics").status == 404
    assert chain.applications["a-1"].paths == asked


def test_the_health_path_is_answered_by_the_sidecar_for_probes_only(chain: Mesh) -> None:
    asked = chain.applications["a-1"].paths
    count = asked.count("/healthz")
    probe = get(chain.at("a-1", 8786), "/healthz", {"x-envoy-livenessprobe": "healthz"})
    assert (probe.status, probe.text, asked.count("/healthz")) == (200, "", count)
    assert get(chain.at("a-1", 8786), "/healthz").name == "a-1"
    assert asked.count("/healthz") == count + 1
    assert get(chain.front(), "/healthz", {"x-envoy-livenessprobe": "healthz"}).name == ""


def test_access_logs_tell_one_request_by_its_id_on_its_whole_way(chain: Mesh) -> None:
    answer = get(chain.front(), "/api/logged?x=1", {"x-request-id": "forged"})
    request_id = answer.seen["headers"]["x-request-id"]
    assert re.fullmatch("[0-9a-f-]{36}", request_id)
    assert answer.headers["x-request-id"] == request_id
    get(chain.at("a-1", 8788), "/logged", {"x-request-id": request_id})
    send(chain.at("a-1", 9092), b"x")

    def lines(name: str) -> list[str]:
        return [line for line in chain.log(name).splitlines() if request_id in line]

    wait_until(lambda: lines("front-1") and len(lines("a-1")) == 2, "the logs are written")
    wait_until(lambda: lines("b-1") + lines("b-2"), "the logs are written")
    tcp = rf"^\[\S+Z\] egress_9092 tcp - 1 9 \d+ms 127[\d.:]+ -> queue {chain.at('queue-1', 9001)}$"
    wait_until(lambda: re.search(tcp, chain.log("a-1"), re.MULTILINE), "the log of TCP is written")

    entry = json.loads(lines("front-1")[0])
    assert entry | {"time": "", "duration_ms": 0} == {
        "listener": f"front_{chain.ports['FRONT']}",
        "time": "",
        "method": "GET",
        "authority": chain.front(),
        "path": "/api/logged?x=1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "grpc_status": None,
        "flags": "-",
        "bytes_received": 0,
        "bytes_sent": len(answer.text),
        "duration_ms": 0,
        "request_id": request_id,
        "upstream_cluster": "a",
        "upstream_host": chain.at("a-1", 8786),
    }
    ingress, egress = lines("a-1")
    assert re.fullmatch(
        rf'\[\S+Z\] ingress_8786 "GET /api/logged\?x=1 HTTP/1.1" 200 - 0 {len(answer.text)} \d+ms {request_id} '
        rf'"{re.escape(chain.front())}" -> local_app {chain.at("a-1", 8081)}',
        ingress,
    )
    assert ' egress_8788 "GET /logged HTTP/1.1" 200 - ' in egress
    assert json.loads((lines("b-1") + lines("b-2"))[0])["upstream_cluster"] == "local_app"


def test_every_port_of_an_envoy_is_on_its_own_loopback_address(chain: Mesh) -> None:
    """The admin interface above all; only a front's own listeners are on localhost."""
    assert _listening(chain.pid("a-1")) == {chain.at("a-1", port) for port in (8786, 8788, 9092, 9902, 9903)}
    front = {chain.at("front-1", 9901), chain.at("front-1", 9902), chain.front(), chain.front("2")}
    assert _listening(chain.pid("front-1")) == front
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9903), timeout=1)


def _listening(pid: int) -> set[str]:
    """address:port of every TCP socket a process listens on."""
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir() if "socket:" in str(link.readlink())}
    found = set()
    for file, width in (("tcp", 8), ("tcp6", 32)):
        for line in Path(f"/proc/{pid}/net/{file}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in inodes:
                address, port = words[1].split(":")
                assert len(address) == width == 8, "an IPv6 socket"
                found.add(f"{socket.inet_ntoa(bytes.fromhex(address)[::-1])}:{int(port, 16)}")
    return found


# TLS


def _certificate(folder: Path, name: str, *, kubelet: bool = False) -> x509.Certificate:
    """A new self-signed certificate as tls.crt and tls.key of a folder, or of a volume."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = {
        "tls.key": private.decode(),
        "tls.crt": certificate.public_bytes(serialization.Encoding.PEM).decode(),
    }
    if kubelet:
        swap(folder, files)
    else:
        for file, text in files.items():
            write(folder / file, text)
    return certificate


def _any_certificate(*protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


def _handshake(where: str, context: ssl.SSLContext) -> tuple[int, str | None, str | None]:
    """Serial number of the served certificate, protocol by ALPN, TLS version."""
    host, _rest, port = where.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as plain, context.wrap_socket(plain) as connection:
        served = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
        return served.serial_number, connection.selected_alpn_protocol(), connection.version()


TLS = """
services:
  - {name: web, port: 8081, sidecar: false}
  - {name: echo, port: 8081, protocol: grpc, sidecar: false}
  - {name: queue, port: 8081, protocol: tcp, sidecar: false}
front_proxies:
  - name: front
    listeners:
      - {port: FRONT, tls: {secret: first}}
      - {port: FRONT2, tls: {secret: second}, protocol: tcp, service: queue}
    routes: [{grpc: api.Echo, service: echo}, {prefix: /, service: web}]
"""


def test_tls_serves_http_1_and_2_and_new_certificates_without_a_restart(mesh: Run) -> None:
    made: dict[str, x509.Certificate] = {}

    def certificates(folder: Path) -> None:
        made["first"] = _certificate(folder / "certificates" / "first", "first")
        made["second"] = _certificate(folder / "certificates" / "second", "second", kubelet=True)

    running_mesh = mesh(TLS, certificates)
    front, pid = running_mesh.front(), running_mesh.pid("front-1")
    context = _any_certificate("h2", "http/1.1")
    assert _handshake(front, context) == (made["first"].serial_number, "h2", "TLSv1.3")
    assert _handshake(front, _any_certificate("http/1.1"))[1] == "http/1.1"
    assert _handshake(running_mesh.front("2"), context)[:2] == (made["second"].serial_number, None)
    assert get(front, "/a", tls=_any_certificate("http/1.1")).seen["headers"]["x-forwarded-proto"] == "https"
    assert send(running_mesh.front("2"), b"hi", _any_certificate()) == b"queue-1:hi"
    root = made["first"].public_bytes(serialization.Encoding.PEM)
    host = front.replace("127.0.0.1", "localhost")
    with grpc.secure_channel(host, grpc.ssl_channel_credentials(root)) as channel:
        assert call(channel) == (b"\n\x04echo", "echo-1")

    rotated = _certificate(running_mesh.folder / "certificates" / "first", "rotated").serial_number
    wait_until(lambda: _handshake(front, context)[0] == rotated, "the new certificate is served")
    assert _handshake(running_mesh.front("2"), context)[0] == made["second"].serial_number
    rotated = _certificate(running_mesh.folder / "certificates" / "second", "rotated", kubelet=True).serial_number
    wait_until(lambda: _handshake(running_mesh.front("2"), context)[0] == rotated, "the new certificate is served")
    assert get(front, tls=_any_certificate("http/1.1")).name == "web-1"
    assert running_mesh.pid("front-1") == pid


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_tls_refuses_what_is_older_than_1_2(mesh: Run) -> None:
    running_mesh = mesh(TLS, lambda folder: [_certificate(folder / "certificates" / n, n) for n in ("first", "second")])
    old = _any_certificate("http/1.1")
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        _handshake(running_mesh.front(), old)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    assert _handshake(running_mesh.front(), old)[2] == "TLSv1.2"


# gRPC

GRPC = """
services:
  - name: echo
    port: 8081
    protocol: grpc
    replicas: 3
    sidecar: {port: 8786, routes: [{prefix: /api.Echo/}, {prefix: /grpc.health.v1.Health/}]}
    health_check: {type: grpc, interval: 100ms, unhealthy_interval: 100ms, timeout: 1s}
front_proxies:
  - {name: front, listeners: [{port: FRONT}], routes: [{prefix: /api.Echo/, service: echo}]}
"""


def test_grpc_spreads_calls_passes_status_and_follows_health(mesh: Run) -> None:
    running_mesh = mesh(GRPC)

    def healthy(count: int) -> Callable[[], bool]:
        return lambda: running_mesh.stat("front-1", "cluster.echo.membership_healthy") == count

    wait_until(healthy(3), "all three are healthy")
    with grpc.insecure_channel(running_mesh.front()) as channel:
        shares = dict.fromkeys(("echo-1", "echo-2", "echo-3"), 4)
        wait_until(lambda: Counter(call(channel)[1] for _rest in range(12)) == shares, "all get their share")
        with pytest.raises(grpc.RpcError) as error:
            call(channel, FAIL)
        assert (error.value.code(), error.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not today")
        with pytest.raises(grpc.RpcError) as error:
            call(channel, "/api.Other/Echo")
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED

        running_mesh.applications["echo-2"].health = NOT_SERVING
        wait_until(healthy(2), "one is not healthy any more")
        others = {"echo-1", "echo-3"}
        wait_until(lambda: {call(channel)[1] for _rest in range(12)} == others, "it gets no calls any more")
        running_mesh.applications["echo-2"].health = SERVING
        wait_until(healthy(3), "all three are healthy again")


# Health checks, timeouts, retries


def test_an_unhealthy_replica_gets_no_requests_until_it_recovers(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - name: web
    port: 8081
    replicas: 3
    sidecar: false
    health_check: {type: http, path: /alive, interval: 100ms, unhealthy_interval: 100ms, timeout: 500ms}
  - {name: queue, port: 9000, protocol: tcp, replicas: 2, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}, {port: FRONT2, protocol: tcp, service: queue}]
    routes: [{prefix: /, service: web}]
    upstreams: [{service: queue, health_check: {type: tcp, interval: 100ms, unhealthy_interval: 100ms}}]
""")
    front, ill = running_mesh.front(), running_mesh.applications["web-2"]

    def healthy(service: str, count: int) -> Callable[[], bool]:
        return lambda: running_mesh.stat("front-1", f"cluster.{service}.membership_healthy") == count

    wait_until(healthy("web", 3), "all are healthy")
    wait_until(lambda: names(front, 9) == dict.fromkeys(("web-1", "web-2", "web-3"), 3), "all get their share")
    # Not the name that DNS is asked for, with its dot at the end.
    assert ill.hosts["/alive"] == "web"
    ill.answer = lambda path: 503 if path == "/alive" else 200
    wait_until(healthy("web", 2), "one is not healthy any more")
    wait_until(lambda: set(names(front, 12)) == {"web-1", "web-3"}, "it gets no requests any more")
    ill.answer = lambda _rest: 200
    wait_until(healthy("web", 3), "all are healthy again")
    wait_until(lambda: names(front, 9) == dict.fromkeys(("web-1", "web-2", "web-3"), 3), "it gets its share again")

    wait_until(healthy("queue", 2), "both are healthy")
    running_mesh.applications["queue-1"].stop()
    wait_until(healthy("queue", 1), "one is not healthy any more")
    only = {b"queue-2:x"}
    wait_until(lambda: {send(running_mesh.front("2"), b"x") for _rest in range(4)} == only, "it gets no connections")


def test_timeouts_answer_504_in_time(mesh: Run) -> None:
    running_mesh = mesh("""
services:
  - name: app
    port: 8081
    upstreams: [{service: slow, port: 9001, timeout: 300ms}, {service: patient, port: 9002}]
  - {name: slow, port: 8081, sidecar: false}
  - {name: patient, port: 8081, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes: [{prefix: /short, service: slow, timeout: 200ms}, {prefix: /, service: slow}]
    upstreams: [{service: slow, timeout: 1s}]
""")

    def late(seconds: float) -> Callable[[str], int]:
        return lambda _rest: time.sleep(seconds) or 200

    running_mesh.applications["slow-1"].answer = late(2)
    running_mesh.applications["patient-1"].answer = late(0.5)
    for where, path, at_least, at_most in (
        (running_mesh.at("app-1", 9001), "/", 0.3, 0.95),
        (running_mesh.front(), "/short", 0.2, 0.95),
        (running_mesh.front(), "/", 1, 1.95),
    ):
        started = time.monotonic()
        assert get(where, path).status == 504
        assert at_least - 0.05 <= time.monotonic() - started < at_most
    assert get(running_mesh.at("app-1", 9002)).status == 200


RETRIES = """
services:
  - {name: web, port: 8081, replicas: 3, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    routes:
      - {prefix: /none, service: web, retries: 0}
      - {prefix: /some, service: web, retries: {count: 1, on: [5xx]}}
      - {prefix: /idempotent, service: web, idempotent: true, timeout: 10s}
      - {prefix: /, service: web}
    upstreams: [{service: web, outlier_detection: false}]
"""


@pytest.fixture
def retries(mesh: Run) -> Mesh:
    return mesh(RETRIES)


def test_retries_reach_another_replica_when_one_refuses_connections(retries: Mesh) -> None:
    retries.applications["web-2"].stop()
    assert statuses(retries.front(), 60) == {200: 60}
    assert statuses(retries.front(), 60, "/none") == {200: 40, 503: 20}


def test_idempotent_requests_are_repeated_on_errors_others_are_not(retries: Mesh) -> None:
    ill, front = retries.applications["web-2"], retries.front()
    ill.answer = lambda _rest: 503
    assert statuses(front, 30, "/idempotent") == {200: 30}
    assert statuses(front, 30, "/some") == {200: 30}
    assert statuses(front, 30) == {200: 20, 503: 10}
    ill.answer = lambda _rest: 404
    assert statuses(front, 30, "/idempotent") == {200: 20, 404: 10}
    ill.answer = lambda _rest: None
    assert statuses(front, 30, "/idempotent") == {200: 30}
    # The request had been sent: it may have had its effect.
    assert statuses(front, 30) == {200: 20, 503: 10}


def test_an_idempotent_request_does_not_wait_for_a_replica_that_hangs(retries: Mesh) -> None:
    def hang(_path: str) -> int:
        time.sleep(4)
        return 200

    retries.applications["web-2"].answer = hang
    started = time.monotonic()
    assert statuses(retries.front(), 3, "/idempotent") == {200: 3}
    assert 1 <= time.monotonic() - started < 3


# What the model does not name

PATCHES = """
services:
  - name: app
    port: 8081
    sidecar:
      routes:
        - prefix: /
          envoy_patch: {route: {response_headers_to_add: [{header: {key: x-ingress-route, value: "yes"}}]}}
    envoy_patch:
      cluster: {alt_stat_name: patched_app}
      listener: {stat_prefix: patched_ingress}
      http_connection_manager: {server_name: patched-ingress, stat_prefix: null}
      bootstrap: {node: {locality: {zone: "n"}}}
    upstreams:
      - service: web
        port: 9001
        envoy_patch:
          cluster: {alt_stat_name: patched_web}
          listener: {stat_prefix: patched_egress}
          http_connection_manager: {server_name: patched-egress}
          route: {route: {timeout: null}, response_headers_to_add: [{header: {key: x-egress-route, value: "on"}}]}
  - {name: web, port: 8081, sidecar: false}
front_proxies:
  - name: front
    listeners:
      - port: FRONT
        envoy_patch: {listener: {stat_prefix: patched_front}, http_connection_manager: {server_name: patched-front}}
      - port: FRONT2
    routes:
      - prefix: /denied
        service: web
        envoy_patch: {route: {route: null, direct_response: {status: 418, body: {inline_string: "0x1f"}}}}
      - {prefix: /, service: web}
    upstreams: [{service: web, envoy_patch: {cluster: {alt_stat_name: patched_front_web}}}]
    envoy_patch: {bootstrap: {stats_config: {stats_tags: [], use_all_default_tags: false}}}
"""


def test_a_patch_on_each_level_takes_effect(mesh: Run) -> None:
    patched = mesh(PATCHES.replace(", stat_prefix: null", ""))
    ingress = get(patched.at("app-1", 8786))
    assert (ingress.headers["server"], ingress.headers["x-ingress-route"]) == ("patched-ingress", "yes")
    egress = get(patched.at("app-1", 9001))
    assert (egress.headers["server"], egress.headers["x-egress-route"]) == ("patched-egress", "on")
    sidecar = patched.stats("app-1")
    for key in ("cluster.patched_app", "cluster.patched_web"):
        assert sidecar[f"{key}.upstream_rq_total"] == 1
    for key in ("listener.patched_ingress", "listener.patched_egress"):
        assert sidecar[f"{key}.downstream_cx_total"] == 1
    assert json.loads(admin.request(patched.admin("app-1"), "/server_info"))["node"]["locality"]["zone"] == "n"

    assert get(patched.front()).headers["server"] == "patched-front"
    assert get(patched.front("2")).headers["server"] == "envoy"
    denied = get(patched.front(), "/denied")
    assert (denied.status, denied.text) == (418, "0x1f")
    front = patched.stats("front-1")
    assert front["cluster.patched_front_web.upstream_rq_total"] == 2
    assert front["listener.patched_front.downstream_cx_total"] == 2
    # A patch that removes: without its own timeout a route has Envoy's.
    folder = proxy_files(patched.proxy("app-1"))
    assert "timeout" not in folder["rds.egress_9001.yaml"]


SHARED_PATCHES = """
services:
  - name: app
    port: 8081
    egress:
      mode: shared
      envoy_patch: {listener: {stat_prefix: patched_shared}, http_connection_manager: {server_name: patched-shared}}
    envoy_patch: {virtual_host: {response_headers_to_add: [{header: {key: x-host, value: ingress}}]}}
    upstreams:
      - service: web
        envoy_patch: {virtual_host: {response_headers_to_add: [{header: {key: x-host, value: egress}}]}}
      - service: other
        port: 9001
        envoy_patch: {virtual_host: {response_headers_to_add: [{header: {key: x-host, value: own egress}}]}}
  - {name: web, port: 8081, sidecar: false}
  - {name: other, port: 8081, sidecar: false}
front_proxies:
  - name: front
    listeners: [{port: FRONT}]
    virtual_hosts:
      - name: shop
        domains: [shop.example.com]
        routes:
          - prefix: /
            service: web
            envoy_patch: {route: {response_headers_to_add: [{header: {key: x-route, value: front}}]}}
        envoy_patch: {virtual_host: {response_headers_to_add: [{header: {key: x-host, value: front}}]}}
    routes: [{prefix: /, service: web}]
"""


def test_virtual_hosts_and_the_shared_listener_take_patches(mesh: Run) -> None:
    patched = mesh(SHARED_PATCHES)
    assert get(patched.at("app-1", 8786)).headers["x-host"] == "ingress"
    shared = get(patched.at("app-1", 15001), "/", {"host": "web"})
    assert (shared.headers["server"], shared.headers["x-host"]) == ("patched-shared", "egress")
    assert patched.stats("app-1")["listener.patched_shared.downstream_cx_total"] == 1
    assert get(patched.at("app-1", 9001)).headers["x-host"] == "own egress"
    front = get(patched.front(), "/", {"host": "shop.example.com"})
    assert (front.headers["x-host"], front.headers["x-route"]) == ("front", "front")
    assert "x-host" not in get(patched.front()).headers


# Without files


def test_everything_in_the_bootstrap_serves_the_same(mesh: Run) -> None:
    running_mesh = mesh(
        """
services:
  - name: a
    port: 8081
    upstreams: [{service: b, port: 9001}, {service: c, port: 9002}, {service: queue, port: 9003}]
  - {name: b, port: 8081, replicas: 2, sidecar: false, discovery: eds}
  - {name: c, port: 8081, replicas: 2, sidecar: false}
  - {name: queue, port: 9000, protocol: tcp, sidecar: false, discovery: static}
front_proxies:
  - {name: front, listeners: [{port: FRONT}, {port: FRONT2, tls: first}], routes: [{prefix: /, service: a}]}
settings: {config_delivery: static}
""",
        lambda folder: _certificate(folder / "certificates" / "first", "first"),
    )
    assert sorted(path.name for path in running_mesh.config("front-1").iterdir()) == [
        "bootstrap.yaml",
        "sds.first.yaml",
    ]
    assert get(running_mesh.front()).name == "a-1"
    assert get(running_mesh.front("2"), tls=_any_certificate("http/1.1")).name == "a-1"
    assert names(running_mesh.at("a-1", 9001), 4) == {"b-1": 2, "b-2": 2}
    assert names(running_mesh.at("a-1", 9002), 4) == {"c-1": 2, "c-2": 2}
    assert send(running_mesh.at("a-1", 9003), b"x") == b"queue-1:x"


# What Envoy reads is what was written

TEXTS = [
    *("y", "n", "Y", "N", "yes", "no", "on", "off", "On", "OFF", "true", "False", "null", "~", "", " ", "nil"),
    *("1", "-1", "+1", "1.", ".5", "1e3", "1E+3", "1e", "0x1f", "0X1F", "0x1p3", "0X1.8P-3", "0b1", "0o17", "017"),
    *("08", "1_000", "12:30", "12:30:45", "2001-01-01", "inf", "-INF", ".inf", "nan", ".NaN", "Infinity", "<<", "="),
    *("a: b", "a #b", "#", "- a", "? a", "*a", "&a", "!a", "!!str a", "%a", "@a", "`a", "|", ">-", "{a}", "[a]", "a,b"),
    *("'", '"', "''", "\\n", "\n", "a\n", "\n\na", " a\n b\n", "a\tb", "\t", "a\r\nb", "x" * 5000, "ab " * 2000),
    *("ü", "😀", "\u2028", "a\u2029b", "\ufeff", "\x1b[0m", "$(A)", "%START_TIME%", "127.0.0.1", "::1", "---", "..."),
]


def test_envoy_reads_every_text_as_the_text_it_is(mesh: Run) -> None:
    metadata = {"values": {str(number): text for number, text in enumerate(TEXTS)}, "keys": dict.fromkeys(TEXTS, "v")}
    del metadata["keys"][""]
    patch = {"bootstrap": {"node": {"id": "y", "cluster": "0X1F", "metadata": metadata}}}
    running_mesh = mesh(json.dumps({"services": [{"name": "a", "port": 8081, "envoy_patch": patch}]}))
    dump = json.loads(admin.request(running_mesh.admin("a-1"), "/config_dump"))
    assert dump["configs"][0]["bootstrap"]["node"]["metadata"] == metadata


# Publishing


def test_a_port_may_change_from_one_listener_to_another(mesh: Run) -> None:
    """Envoy refuses two listeners with one address: each step of a change must spare it that."""
    inventory = """
services:
  - {name: a, port: 8081, sidecar: {port: 8786}, upstreams: [{service: b, port: 8788}, {service: c, port: 8789}]}
  - {name: b, port: 8081, sidecar: false}
  - {name: c, port: 9000, sidecar: false, protocol: tcp}
"""
    running_mesh = mesh(inventory)
    old = {path.name: path.read_text() for path in running_mesh.config("a-1").iterdir()}
    swapped = inventory.replace("8786", "X").replace("8788", "8786").replace("X", "8788").replace("8789", "8790")
    running_mesh.model = running_mesh.built(swapped)
    where = running_mesh.admin("a-1")

    def accepted(versions: dict[str, str]) -> bool:
        return not admin.pending(admin.subscription_stats(where), versions)

    for folder in steps(old, proxy_files(running_mesh.proxy("a-1"))):
        for name, text in folder.items():
            write(running_mesh.config("a-1") / name, text)
        wait_until(functools.partial(accepted, admin.file_versions(folder)), "the step is accepted")
    stats = admin.subscription_stats(where)
    assert {name: admin.refusals(stats, name) for name in ("cds.yaml", "lds.yaml")} == {"cds.yaml": 0, "lds.yaml": 0}
    assert names(running_mesh.at("a-1", 8788), 2) == {"a-1": 2}
    assert names(running_mesh.at("a-1", 8786), 2) == {"b-1": 2}
    assert send(running_mesh.at("a-1", 8790), b"x") == b"c-1:x"
