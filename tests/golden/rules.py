"""What holds for every configuration the collection makes, whatever the inventory."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml

Map = dict[str, Any]
MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass
class Config:
    """One proxy's configuration, wherever its parts are."""

    bootstrap: Map
    clusters: list[Map]
    listeners: list[Map]
    routes: dict[str, Map] = field(default_factory=dict)
    endpoints: dict[str, Map] = field(default_factory=dict)
    secrets: dict[str, Map] = field(default_factory=dict)

    @classmethod
    def read(cls, files: dict[str, str]) -> Config:
        data = {name: envoy_yaml.load(text) for name, text in files.items()}
        bootstrap = data["bootstrap.yaml"]
        static = bootstrap.get("static_resources", {})
        config = cls(bootstrap, [], [])
        config.clusters = static.get("clusters", []) + data.get("cds.yaml", {}).get("resources", [])
        config.listeners = static.get("listeners", []) + data.get("lds.yaml", {}).get("resources", [])
        for name in data:
            kind, _rest, resource = name.removesuffix(".yaml").partition(".")
            parts = {"rds": config.routes, "eds": config.endpoints, "sds": config.secrets}
            if kind in parts:
                (parts[kind][resource],) = data[name]["resources"]
        return config

    def managers(self) -> Iterator[tuple[Map, Map, Map]]:
        """Every listener with its HTTP connection manager and routes."""
        for listener in self.listeners:
            network = _networks(listener)[0]
            if network["@type"] == MANAGER:
                name = network.get("rds", {}).get("route_config_name")
                yield listener, network, network.get("route_config") or self.routes.get(name, {})


def broken(files: dict[str, str]) -> list[str]:
    """A line for every rule that a folder breaks."""
    config = Config.read(files)
    return [
        *_files(files),
        *_names(config),
        *_bootstrap(config),
        *_listeners(config),
        *_managers(config),
        *_routes(config),
        *_clusters(config),
        *_secrets(config),
    ]


def _files(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        data = envoy_yaml.load(text)
        if envoy_yaml.dump(data) != text:
            yield f"{name}: is not in its canonical form"
        resources = envoy_yaml.dump({"resources": data["resources"]}) if "resources" in data else None
        version = envoy_yaml.text_hash(resources) if resources else None
        if data.get("version_info") != version:
            yield f"{name}: its version is not the hash of its resources"
        for resource in data.get("resources", []):
            if not str(resource.get("@type")).startswith("type.googleapis.com/envoy."):
                yield f"{name}: a resource without a type"


def _names(config: Config) -> Iterator[str]:
    yield from _twice("cluster", (cluster["name"] for cluster in config.clusters))
    yield from _twice("listener", (listener["name"] for listener in config.listeners))
    yield from _twice("address", (str(_address(listener)) for listener in config.listeners))
    for _rest, _rest, routes in config.managers():
        yield from _twice("virtual host", (host["name"] for host in routes.get("virtual_hosts", [])))
        yield from _twice(
            "domain", (domain.lower() for host in routes.get("virtual_hosts", []) for domain in host["domains"])
        )
    for resource, found in {**config.routes, **config.secrets}.items():
        if found["name"] != resource:
            yield f"{resource}: the file holds {found['name']}"
    for resource, found in config.endpoints.items():
        if found["cluster_name"] != resource:
            yield f"{resource}: the file holds {found['cluster_name']}"


def _bootstrap(config: Config) -> Iterator[str]:
    if len(config.bootstrap.get("overload_manager", {}).get("resource_monitors", [])) != 2:
        yield "overload_manager: memory or connections have no limit"
    own = config.bootstrap.get("cluster_manager", {}).get("local_cluster_name")
    if own and own not in [cluster["name"] for cluster in config.bootstrap["static_resources"]["clusters"]]:
        yield f"cluster_manager: {own} is not there at the start"
    address, port = _socket(config.bootstrap["admin"])
    if not ipaddress.ip_address(address).is_loopback:
        yield f"admin: listens on {address}"
    if (address, port) in map(_address, config.listeners):
        yield "admin: shares its address with a listener"


def _listeners(config: Config) -> Iterator[str]:
    for listener in config.listeners:
        name, (address, port) = listener["name"], _address(listener)
        if listener.get("enable_reuse_port") is not False:
            yield f"{name}: may share its port with another process"
        if name.startswith("egress_") and not ipaddress.ip_address(address).is_loopback:
            yield f"{name}: egress listens on {address}"
        if not name.endswith(f"_{port}"):
            yield f"{name}: listens on {port}"
        if name.startswith("metrics_") != listener.get("bypass_overload_manager", False):
            yield f"{name}: bypass_overload_manager"
        if "envoy_admin" in called(listener) and not name.startswith("metrics_"):
            yield f"{name}: leads to the admin interface"
        wanted = [
            chain.get("filter_chain_match", {}).get("server_names", ["any"]) for chain in listener["filter_chains"]
        ]
        yield from _twice(f"{name}: server name", (server_name for names in wanted for server_name in names))


def _managers(config: Config) -> Iterator[str]:
    for listener, manager, _rest in config.managers():
        if listener["name"].startswith("metrics_"):
            routes = manager["route_config"]["virtual_hosts"][0]["routes"]
            if any("path" not in route["match"] or "headers" not in route["match"] for route in routes):
                yield f"{listener['name']}: more than reading some pages"
        if "rds" in manager and manager["rds"]["route_config_name"] != listener["name"]:
            yield f"{listener['name']}: reads the routes {manager['rds']['route_config_name']}"
        for key in ("normalize_path", "merge_slashes", "stream_error_on_invalid_http_message"):
            if manager.get(key) is not True:
                yield f"{listener['name']}: {key} is off"
        if listener["name"].startswith("front_") != manager.get("use_remote_address", False):
            yield f"{listener['name']}: use_remote_address"
        if manager["http_filters"][-1]["name"] != "envoy.filters.http.router":
            yield f"{listener['name']}: the router is not the last filter"


def _routes(config: Config) -> Iterator[str]:
    known = {cluster["name"] for cluster in config.clusters}
    sender = config.bootstrap.get("dynamic_resources", {}).get("ads_config", {}).get("grpc_services", [])
    used = {*called(config.listeners), *called(list(config.routes.values()))}
    used |= {each["envoy_grpc"]["cluster_name"] for each in sender}
    own = {"local_app", config.bootstrap.get("cluster_manager", {}).get("local_cluster_name")}
    read = set()
    for listener, manager, routes in config.managers():
        read.add(manager.get("rds", {}).get("route_config_name"))
        if routes.get("name") != listener["name"]:
            yield f"{listener['name']}: has the routes {routes.get('name')}"
        for host in routes.get("virtual_hosts", []):
            if not host["routes"]:
                yield f"{listener['name']}: {host['name']} has no routes"
    for name in sorted(used - known):
        yield f"{name}: there is no such cluster"
    for name in sorted(known - used - own):
        yield f"{name}: nobody uses this cluster"
    for name in sorted(config.routes.keys() - read):
        yield f"{name}: nobody reads these routes"


def _clusters(config: Config) -> Iterator[str]:
    for cluster in config.clusters:
        name = cluster["name"]
        if not {"connect_timeout", "per_connection_buffer_limit_bytes", "lb_policy"} <= set(cluster):
            yield f"{name}: leaves something to Envoy's defaults"
        if (cluster.get("type") == "EDS") != (name in config.endpoints):
            yield f"{name}: EDS and no file, or a file and no EDS"
        if "health_checks" in cluster and not cluster.get("ignore_health_on_host_removal"):
            yield f"{name}: a replica that left stays while it answers health checks"
        tls = cluster.get("transport_socket", {}).get("typed_config")
        if tls and not tls["common_tls_context"]["validation_context"].get("match_typed_subject_alt_names"):
            yield f"{name}: believes any certificate"
        for endpoint in _endpoints(cluster):
            if endpoint.get("hostname", "").endswith("."):
                yield f"{name}: a host name with a dot at its end"
            if ("cluster_type" in cluster) != endpoint["address"]["socket_address"]["address"].endswith("."):
                yield f"{name}: DNS is asked for a name without a dot at its end, or something else has one"


def _secrets(config: Config) -> Iterator[str]:
    for name, secret in config.secrets.items():
        certificate = secret.get("tls_certificate")
        if "watched_directory" not in (certificate or secret["generic_secret"]["secret"]):
            yield f"{name}: a new one would not be seen"
        if set(certificate["private_key"] if certificate else ["filename"]) != {"filename"}:
            yield f"{name}: a private key outside of its file"


def _twice(what: str, values: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {value}: {count} times" for value, count in Counter(values).items() if count > 1)


def _networks(listener: Map) -> list[Map]:
    """The last filter of each chain, which passes on what arrives."""
    return [chain["filters"][-1]["typed_config"] for chain in listener["filter_chains"]]


def called(part: Any) -> Iterator[str]:
    """Every cluster that a part of a configuration names."""
    if isinstance(part, list):
        for item in part:
            yield from called(item)
    elif isinstance(part, dict):
        for key, item in part.items():
            if key in ("cluster", "cluster_name"):
                yield item
            elif key == "weighted_clusters":
                yield from (share["name"] for share in item["clusters"])
            else:
                yield from called(item)


def _socket(holder: Map) -> tuple[str, int]:
    address = holder["address"]["socket_address"]
    return address["address"], address["port_value"]


def _address(listener: Map) -> tuple[str, int]:
    return _socket(listener)


def _endpoints(cluster: Map) -> Iterator[Map]:
    for locality in cluster.get("load_assignment", {}).get("endpoints", []):
        for item in locality["lb_endpoints"]:
            yield item["endpoint"]
