"""Steps of a change: whatever two configurations, no step has a route without its cluster or misses a listener."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import envoy_yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.files import proxy_files, response
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model
from ansible_collections.sidecar.mesh.plugins.module_utils.publishing import held, steps, zone_steps
from golden.rules import called
from hypothesis import Phase, given, settings
from hypothesis import strategies as some

Files = dict[str, str]
CALLEES = ("b", "c", "d", "e", "s", "v")
# Making a failing example smaller takes minutes.
SETTINGS = settings(database=None, derandomize=True, deadline=None, phases=[Phase.generate])
PROTOCOLS = {"b": "http", "c": "grpc", "d": "tcp", "e": "http", "s": "tls", "v": "http"}
HTTP = ("b", "c", "e", "v")


@functools.cache
def load(text: str) -> dict[str, Any]:
    """The data of a file; steps have most of their files in common."""
    data: dict[str, Any] = envoy_yaml.load(text)
    if "resources" in data:
        assert data["version_info"] == envoy_yaml.text_hash(envoy_yaml.dump({"resources": data["resources"]}))
    return data


class Folder:
    """A config folder as Envoy sees it."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.clusters = self._resources("cds.yaml")
        self.listeners = self._resources("lds.yaml")

    def _resources(self, name: str) -> dict[str, Any]:
        return {item["name"]: item for item in load(self.files[name])["resources"]}

    def networks(self, listener: str) -> list[dict[str, Any]]:
        chains = self.listeners[listener]["filter_chains"]
        return [chain["filters"][-1]["typed_config"] for chain in chains]

    def used(self) -> set[str]:
        """Clusters that requests may be sent to."""
        found: set[str] = set()
        for name in self.listeners:
            for network in self.networks(name):
                found |= set(called(network))
                if "rds" in network:
                    assert network["rds"]["route_config_name"] == name
                    (routes,) = load(self.files[f"rds.{name}.yaml"])["resources"]
                    assert routes["name"] == name
                    found |= set(called(routes))
        return found

    def addresses(self) -> list[tuple[str, int]]:
        found = [item["address"]["socket_address"] for item in self.listeners.values()]
        return [(address["address"], address["port_value"]) for address in found]

    def check(self) -> None:
        """What holds for every folder by itself."""
        assert self.used() <= set(self.clusters)
        assert len(set(self.addresses())) == len(self.addresses())
        for name, cluster in self.clusters.items():
            if cluster.get("type") == "EDS":
                (assignment,) = load(self.files[f"eds.{name}.yaml"])["resources"]
                assert assignment["cluster_name"] == name
        for name in self.listeners:
            socket = self.listeners[name]["filter_chains"][0].get("transport_socket")
            if socket:
                (secret,) = socket["typed_config"]["common_tls_context"]["tls_certificate_sds_secret_configs"]
                assert f"sds.{secret['name']}.yaml" in self.files
        assert all("resources" in load(text) for name, text in self.files.items() if name != "bootstrap.yaml")


def check_held(old: Files, new: Files) -> None:
    """Asserts that an application which was not restarted yet finds its own side as it was."""
    found = held(old, new)
    check_steps(old, found)
    check_steps(found, new)
    before, between = Folder(old), Folder(found)
    assert between.clusters.get("local_app") == before.clusters.get("local_app")
    for name in before.listeners:
        assert name in between.listeners
        if name.startswith("egress_"):
            assert between.listeners[name] == before.listeners[name]
            assert found.get(f"rds.{name}.yaml") == old.get(f"rds.{name}.yaml", found.get(f"rds.{name}.yaml"))


def check_steps(old: Files, new: Files) -> list[Files]:
    """Asserts all that a change promises; the steps."""
    found = steps(old, new)
    folders = [Folder(files) for files in (old, *found)]
    before, after = folders[0], Folder(new)
    assert found == [] if old == new else found[-1] == new
    for folder in folders:
        folder.check()
        assert before.listeners.keys() & after.listeners.keys() <= folder.listeners.keys()
        assert before.clusters.keys() & after.clusters.keys() <= folder.clusters.keys()
        assert folder.listeners.keys() <= before.listeners.keys() | after.listeners.keys()
    for first, second in itertools.pairwise(folders):
        # Envoy may take the files of one step in any order.
        both = first.clusters.keys() & second.clusters.keys()
        assert first.used() | second.used() <= both
        # A port changes its owner at once, or is free for nobody.
        assert set(before.addresses()) & set(after.addresses()) <= set(second.addresses())
    return found


@some.composite
def caller(draw: some.DrawFn) -> dict[str, Any]:
    """A service with upstreams of every kind."""
    mode = draw(some.sampled_from(["per_upstream", "shared"]))
    ports = iter(draw(some.permutations(range(9001, 9008))))
    upstreams = []
    for name in draw(some.lists(some.sampled_from(CALLEES), unique=True)):
        own = mode == "per_upstream" or name not in HTTP or draw(some.booleans())
        upstream = {"service": name, "port": next(ports) if own else None}
        upstream["discovery"] = draw(some.sampled_from(["dns", "static", "eds", None]))
        if name in HTTP:
            upstream["timeout"] = draw(some.sampled_from(["1s", None]))
            upstream["mirror"] = draw(some.sampled_from(["w", None])) if name != "c" else None
        upstreams.append(upstream)
    return {
        "name": "a",
        "port": 8081,
        "command": ["x"],
        "protocol": draw(some.sampled_from(["http", "tcp"])),
        "sidecar": {
            "port": next(ports),
            "routes": [{"prefix": draw(some.sampled_from(["/", "/a"]))}],
            "metrics": draw(some.booleans()),
        },
        "egress": {"mode": mode, "port": draw(some.sampled_from([15001, 15002]))},
        "upstreams": upstreams,
    }


@some.composite
def front(draw: some.DrawFn) -> dict[str, Any]:
    """A front proxy with listeners of every kind."""
    services = draw(some.lists(some.sampled_from(HTTP), min_size=1, unique=True))
    listeners: list[dict[str, Any]] = []
    for port in draw(some.lists(some.sampled_from([8001, 8002, 8003]), min_size=1, unique=True)):
        listeners.append(
            draw(
                some.sampled_from(
                    [
                        {"port": port},
                        {"port": port, "https_redirect": True},
                        {"port": port, "tls": {"secret": "one"}},
                        {"port": port, "tls": {"secret": "two"}},
                        {"port": port, "protocol": "tcp", "service": "d"},
                        {"port": port, "protocol": "tls", "services": ["s"]},
                    ]
                )
            )
        )
    routes = [{"prefix": f"/{name}", "service": name} for name in services]
    return {"name": "f", "replicas": 1, "listeners": listeners, "routes": routes}


def folders_of(service: dict[str, Any], proxy: dict[str, Any], replicas: int) -> list[Files]:
    callees = [
        {"name": name, "port": 8081, "command": ["x"], "protocol": PROTOCOLS.get(name, "http"), "replicas": replicas}
        for name in (*CALLEES, "w")
    ]
    callees[CALLEES.index("v")]["versions"] = [{"service": "b", "weight": 1}, {"service": "e", "weight": replicas}]
    model = build_model([service, *callees], [proxy], {"engine": "local", "name": "m", "state_path": "/s"})
    return [proxy_files(item) for item in model["proxies"] if item["workload"] in ("a", "f")]


@settings(SETTINGS, max_examples=40)
@given(caller(), caller(), front(), front(), some.integers(0, 2), some.integers(0, 2))
def test_any_change(
    old: dict[str, Any],
    new: dict[str, Any],
    front_old: dict[str, Any],
    front_new: dict[str, Any],
    replicas_old: int,
    replicas_new: int,
) -> None:
    before, after = folders_of(old, front_old, replicas_old), folders_of(new, front_new, replicas_new)
    for one, other in zip(before, after, strict=True):
        check_steps(one, other)


@settings(SETTINGS, max_examples=12)
@given(caller(), caller())
def test_any_change_that_waits_for_the_application(old: dict[str, Any], new: dict[str, Any]) -> None:
    front = {"name": "f", "listeners": [{"port": 8001}], "routes": [{"prefix": "/", "service": "b"}]}
    check_held(folders_of(old, front, 1)[0], folders_of(new, front, 1)[0])


def files_of(upstreams: str, sidecar_port: int = 8786, **mesh: Any) -> Files:
    """The folder of service a; ``upstreams``: such as ``b:9001 c:9002``."""
    entries = [{"service": word[0], "port": int(word[2:])} for word in upstreams.split()]
    caller = {"name": "a", "port": 8081, "sidecar": {"port": sidecar_port}, "upstreams": entries}
    callees = [{"name": name, "port": 8081, "protocol": PROTOCOLS[name]} for name in "bcd"]
    return proxy_files(build_model([caller, *callees], None, mesh)["proxies"][0])


def names(found: list[Files], file: str) -> list[str]:
    """The resources of a file in each step, by the last part of their names; but those for metrics, which stay."""
    resources = [[item["name"] for item in load(files[file])["resources"]] for files in found]
    stay = {"envoy_admin", "metrics_9902"}
    assert all(stay & set(step) for step in resources)
    return [" ".join(sorted(name.rpartition("_")[2] for name in step if name not in stay)) for step in resources]


def test_the_six_steps_of_a_change() -> None:
    found = check_steps(files_of("b:9001 c:9002"), files_of("b:9001 d:9003"))
    assert names(found, "cds.yaml") == ["app b c d", "app b c d", "app b c d", "app b c d", "app b c d", "app b d"]
    assert names(found, "lds.yaml") == [
        "8786 9001 9002",
        "8786 9001 9002 9003",
        "8786 9001 9002 9003",
        "8786 9001 9002 9003",
        "8786 9001 9003",
        "8786 9001 9003",
    ]
    assert ["rds.egress_9002.yaml" in files for files in found] == [True, True, True, True, True, False]


def test_a_port_changes_its_owner_in_one_step() -> None:
    found = check_steps(files_of("b:9001 c:9002"), files_of("c:9002 b:8786", sidecar_port=9001))
    owners = [sorted(name for name in Folder(files).listeners if name.endswith(("8786", "9001"))) for files in found]
    assert owners == [["egress_9001", "ingress_8786"]] * 3 + [["egress_8786", "ingress_9001"]] * 3


def test_routes_that_change_wait_for_clusters() -> None:
    old, new = files_of("b:9001"), files_of("c:9001")
    found = check_steps(old, new)
    routes = [files["rds.egress_9001.yaml"] for files in found]
    assert routes == [old["rds.egress_9001.yaml"]] * 3 + [new["rds.egress_9001.yaml"]] * 3


def test_nothing_to_do() -> None:
    assert steps(files_of("b:9001"), files_of("b:9001")) == []


@pytest.mark.parametrize(
    "old",
    [
        {},
        {"cds.yaml": ""},
        {"cds.yaml": "a: [", "lds.yaml": "- 1"},
        {"cds.yaml": "resources: 1", "lds.yaml": "resources: [1]"},
        {"cds.yaml": "resources: [{}]"},
    ],
)
def test_a_folder_that_cannot_be_read_is_replaced(old: Files) -> None:
    new = files_of("b:9001")
    found = steps(old, new)
    assert found[-1] == new
    assert all(files["bootstrap.yaml"] == new["bootstrap.yaml"] for files in found)


def test_a_bootstrap_that_holds_everything_has_one_step() -> None:
    old, new = files_of("b:9001", config_delivery="static"), files_of("c:9001", config_delivery="static")
    assert set(new) == {"bootstrap.yaml"}
    assert steps(old, new) == steps(files_of("b:9001"), new) == [new]


def test_arguments_are_not_changed() -> None:
    old, new = files_of("b:9001"), files_of("c:9002")
    copies = dict(old), dict(new)
    steps(old, new)[-1].clear()
    assert (old, new) == copies


def test_names_are_there_before_they_are_asked_for_and_until_nobody_asks() -> None:
    old = {"stays": ["1", "2"], "goes": ["3"]}
    new = {"stays": ["2", "4"], "comes": ["5"]}
    assert zone_steps(old, new) == (
        {"stays": ["1", "2"], "goes": ["3"], "comes": ["5"]},
        {"stays": ["2", "4"], "goes": ["3"], "comes": ["5"]},
    )
    assert zone_steps({}, new) == (new, new)


def front_files(*, tls: str = "", **settings: Any) -> Files:
    listener = {"tls": {"secret": tls}} if tls else {}
    proxy = {
        "name": "f",
        "listeners": [{"port": 8001}, {"port": 8002, **listener}],
        "routes": [{"prefix": "/", "service": "b"}],
        **settings,
    }
    service = {"name": "b", "port": 8081, "image": "b:1"}
    model = build_model([service], [proxy], {"engine": "kubernetes", "envoy_image": "envoy:1"})
    return next(proxy_files(item) for item in model["proxies"] if item["workload"] == "f")


def listeners_of(files: Files) -> dict[str, Any]:
    return {item["name"]: item for item in load(files["lds.yaml"])["resources"]}


def test_a_pod_that_is_to_be_replaced_is_given_no_certificate_it_lacks() -> None:
    """Envoy would refuse the listener, and the change with it."""
    plain, served = front_files(), front_files(tls="own")
    without = [item for item in load(plain["lds.yaml"])["resources"] if item["name"] != "front_8002"]
    for old in (plain, {**plain, "lds.yaml": response(without)}):
        found = held(old, served)
        assert "sds.own.yaml" not in found
        assert listeners_of(found) == listeners_of(old)
    assert held(served, front_files(tls="own", replicas=3)) == served


def test_a_pod_that_is_to_be_replaced_answers_probes_as_it_is_asked() -> None:
    old, new = front_files(health_path="/old"), front_files(health_path="/new")
    assert listeners_of(held(old, new)) == listeners_of(old)
    served = front_files(tls="own", health_path="/old")
    assert listeners_of(held(served, old)) == listeners_of(served)
