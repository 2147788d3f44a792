"""The documentation says what the code does: generated parts are current, examples run, names exist."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
FILTERS = sorted(path.stem for path in (ROOT / "plugins" / "filter").glob("*.py"))
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *(role / "README.md" for role in ROLES)]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
Data = dict[str, Any]

_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def module(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.sidecar.mesh.plugins.{name}")


def title(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return [text for kind, text in _FENCED.findall(path.read_text()) if kind == language]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def build(inventory: Data) -> Any:
    """The model of an inventory's variables."""
    settings = {
        name.removeprefix("mesh_"): value
        for name, value in inventory.items()
        if name not in ("mesh_services", "mesh_front_proxies", "mesh_checks")
    }
    return module("module_utils.model").build_model(
        inventory.get("mesh_services"), inventory.get("mesh_front_proxies"), settings
    )


# Generated text


def test_nothing_is_stale() -> None:
    command = [sys.executable, ROOT / "docs" / "generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("V(dns) or O(type=http)", "`dns` or `type: http`"),
        ("C($(NAME)) stands for", "`$(NAME)` stands for"),
        (
            "see P(sidecar.mesh.mesh_model#filter), L(Envoy,https://envoy.example)",
            "see `sidecar.mesh.mesh_model`, [Envoy](https://envoy.example)",
        ),
        ("plain (text)", "plain (text)"),
    ],
)
def test_markup_becomes_markdown(text: str, expected: str) -> None:
    assert generator().markdown(text) == expected


def fields(path: str, found: Data) -> Iterator[tuple[str, Data]]:
    for name, field in found.items():
        yield f"{path}{name}", field
        inner = field.get("fields") or field.get("items", {}).get("fields") or {}
        yield from fields(f"{path}{name}.", inner)


def schema_fields() -> list[tuple[str, Data]]:
    schema = module("module_utils.schema")
    return list(fields("", {**schema.MESH, **schema.PLAYBOOKS, **schema.SECTIONS, "mesh_checks": schema.CHECKS}))


def test_every_field_of_the_schema_has_a_description() -> None:
    assert [path for path, field in schema_fields() if not field.get("description", "").endswith((".", "Method"))] == []


def test_every_field_of_the_schema_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "variables.md").read_text()
    internal = generator().SET_BY_ROLES
    keys = {path.rpartition(".")[2] for path in dict(schema_fields()) if path not in internal}
    assert sorted(key for key in keys if not re.search(rf"[`.\]_]{re.escape(key)}`", text)) == []


def test_playbooks_read_all_variables_of_the_reference_and_no_others() -> None:
    schema, internal = module("module_utils.schema"), generator().SET_BY_ROLES
    settings = {name for name in schema.MESH if name not in internal}
    passed = yaml.safe_load((ROOT / "playbooks" / "vars" / "mesh.yml").read_text())
    assert set(passed["_mesh_settings_known"]) == settings
    texts = [path.read_text() for path in (ROOT / "playbooks").rglob("*.yml")]
    read = {name for text in texts for name in re.findall(r"(?<![\w.])mesh_[a-z_]+(?= \||(?<=mesh_engine) ==)", text)}
    others = {*schema.SECTIONS, *schema.PLAYBOOKS, "mesh_checks"}
    assert read - {f"mesh_{name}" for name in settings} == others


@pytest.mark.parametrize("name", ["mesh", "reset", "render", "status", "verify"])
def test_playbooks_pass_every_setting_on(name: str) -> None:
    text = (ROOT / "playbooks" / f"{name}.yml").read_text()
    assert re.search(r"vars_files: \[(vars/k3s.yml, )?vars/mesh.yml\]", text)


def test_mesh_settings_are_the_options_of_mesh_model() -> None:
    page = yaml.safe_load((ROOT / "plugins" / "filter" / "mesh_model.yml").read_text())
    options = {
        name: option
        for name, option in page["DOCUMENTATION"]["options"].items()
        if name not in ("_input", "front_proxies")
    }
    schema = module("module_utils.schema").MESH
    assert {name: (option["default"], option.get("choices")) for name, option in options.items()} == {
        name: (field["default"], list(field["choices"]) if "choices" in field else None)
        for name, field in schema.items()
    }


# Roles


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_are_those_of_the_argument_specs(role: Path) -> None:
    entries = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    for name, entry in entries.items():
        described = {key: option["default"] for key, option in entry["options"].items() if "default" in option}
        assert {key: defaults.get(key, "no default") for key in described} == described, name
    optional = {key for entry in entries.values() for key, option in entry["options"].items() if "default" in option}
    assert set(defaults) == optional


# Pages of filters


@pytest.fixture(scope="module")
def documentation() -> Data:
    command = [BIN / "ansible-doc", "--type", "filter", "--json", *(f"sidecar.mesh.{name}" for name in FILTERS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", FILTERS)
def test_page_names_every_parameter_of_its_filter(name: str, documentation: Data) -> None:
    page = documentation[f"sidecar.mesh.{name}"]
    function = getattr(module(f"filter.{name}"), name)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    named = [parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD]
    options = {key: option for key, option in page["doc"]["options"].items() if key != "_input"}
    if len(named) == len(parameters):
        assert set(options) == set(named)
    assert page["doc"].get("positional", "") == ", ".join(named)
    required = [
        parameter.name for parameter in parameters if parameter.default is parameter.empty and parameter.name in named
    ]
    assert [key for key in named if options[key].get("required")] == required


@pytest.mark.parametrize("name", FILTERS)
def test_page_is_complete(name: str, documentation: Data) -> None:
    page = documentation[f"sidecar.mesh.{name}"]
    assert page["doc"]["version_added"] == "0.1.0"
    assert page["doc"]["author"]
    assert page["doc"]["seealso"]
    assert page["examples"]
    assert page["return"]["_value"]["description"]


# Handwritten pages


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in _LINK.findall(_FENCED.sub("", page.read_text())):
        target, anchor = link.partition("#")[::2]
        if "://" in link:
            continue
        file = page.parent / target if target else page
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor and file.is_file() else []
        if not file.exists() or (anchor and anchor not in map(generator().slug, headings)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_headings_have_anchors_of_their_own(page: Path) -> None:
    slugs = [
        generator().slug(heading)
        for heading in re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    ]
    assert sorted(slugs) == sorted(set(slugs))


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {*re.findall(r"`make ([a-z-]+)", text), *re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)} <= targets
    assert {*re.findall(r"ansible-playbook sidecar\.mesh\.(\w+)", text)} <= {path.stem for path in PLAYBOOKS}
    known = {*FILTERS, *(role.name for role in ROLES), *(path.stem for path in PLAYBOOKS)}
    known |= {path.stem for path in (ROOT / "plugins" / "modules").glob("*.py")}
    known |= set(yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text())["action_groups"])
    assert set(re.findall(r"sidecar\.mesh\.(\w+)", text)) - {"git"} <= known


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_yaml_is_yaml(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert yaml.safe_load(text)


def inventories() -> Iterator[tuple[str, Data]]:
    """What the pages show as variables of an inventory, or of role local."""
    for page in PAGES:
        for text in blocks(page, "yaml"):
            data = yaml.safe_load(text)
            if isinstance(data, dict) and "all" in data:
                yield f"{title(page)}, whole", data["all"]["vars"]
            elif isinstance(data, dict) and "mesh_services" in data:
                yield f"{title(page)}, services", data
            elif isinstance(data, list) and "roles" in data[0] and data[0]["roles"][0]["role"].endswith(".local"):
                variables = data[0]["roles"][0]["vars"]
                yield (
                    f"{title(page)}, role",
                    {name.replace("local_", "mesh_", 1): value for name, value in variables.items()},
                )


@pytest.mark.parametrize(
    ("where", "inventory"), list(inventories()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_examples_of_inventories_are_accepted(where: str, inventory: Data) -> None:
    assert build(inventory)["services"], where


def test_examples_of_the_reference_fit_together() -> None:
    inventory: Data = {}
    for text in generator().EXAMPLES.values():
        inventory |= yaml.safe_load(text)
    for engine in ("local", "kubernetes"):
        model = build({**inventory, "mesh_engine": engine})
        checks = module("module_utils.checks").probes(
            model, inventory["mesh_checks"], {"logs": "", "applications": "", "grpcurl": ""}
        )
        assert [check["name"] for check in checks] == ["Both replicas of the shop answer"]


def test_readme_shows_a_message_of_the_model() -> None:
    mistakes = [
        {"name": "stock", "port": 8081, "protocol": "htttp"},
        {"name": "shop", "port": 8080, "upstreams": [{"service": "stok", "port": 9001}]},
    ]
    model = module("module_utils.model")
    with pytest.raises(model.ModelError) as raised:
        model.build_model(mistakes)
    assert f"{raised.value}\n" in blocks(ROOT / "README.md", "text")


def test_readme_has_the_ports_of_the_demo() -> None:
    demo: Data = {}
    for path in sorted((ROOT / "inventory" / "local" / "group_vars" / "all").glob("s*.yml")):
        demo |= yaml.safe_load(path.read_text())
    services = [item for name, items in demo.items() if name.endswith("_services") for item in items]
    fronts = [item for name, items in demo.items() if name.endswith("_fronts") for item in items]
    model = build({"mesh_engine": "local", "mesh_services": services, "mesh_front_proxies": fronts})
    text = (ROOT / "README.md").read_text()
    (example,) = (text for text in blocks(ROOT / "README.md", "yaml") if text.startswith("all:"))
    mentioned = {*re.findall(r"localhost:(\d+)", text)} - {*re.findall(r"localhost:(\d+)", example)}
    assert mentioned == {str(listener["port"]) for front in model["front_proxies"] for listener in front["listeners"]}


def test_readme_has_a_picture_of_the_demo() -> None:
    demo = yaml.safe_load((ROOT / "inventory" / "local" / "group_vars" / "all" / "s3_mesh.yml").read_text())
    services = demo["s3_services"]
    ports = {service["port"] for service in services} | {service["sidecar"]["port"] for service in services}
    ports |= {upstream["port"] for service in services for upstream in service.get("upstreams", [])}
    (picture,) = (text for text in blocks(ROOT / "README.md", "text") if "service-a" in text)
    assert {*re.findall(r":(\d+)", picture)} == {"8080", *map(str, ports)}


def plays() -> Iterator[tuple[str, Data]]:
    """Plays in the pages that need nothing but filters and a folder."""
    for page in PAGES:
        for number, text in enumerate(blocks(page, "yaml")):
            data = yaml.safe_load(text)
            if isinstance(data, list) and "tasks" in data[0] and not re.search(r"include_role|kubeconfig", text):
                yield f"{title(page)}-{number}", data[0]


@pytest.mark.parametrize(("where", "play"), list(plays()), ids=lambda value: value if isinstance(value, str) else "")
def test_plays_run(where: str, play: Data, tmp_path: Path) -> None:
    if "envoy_validate" in str(play) and not shutil.which("envoy", path=f"{BIN}{os.pathsep}{os.environ['PATH']}"):
        pytest.skip("there is no envoy on PATH")
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    (tmp_path / "envoy").mkdir()
    variables = {
        "folder": str(tmp_path / "envoy"),
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
    }
    done = subprocess.run(
        [BIN / "ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), "play.yml"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{where}: {done.stdout}{done.stderr}"
