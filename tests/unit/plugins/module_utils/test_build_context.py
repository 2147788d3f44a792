"""Build contexts and the references of images."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.sidecar.mesh.plugins.module_utils.build_context import files, ignored, patterns
from ansible_collections.sidecar.mesh.plugins.module_utils.images import BuildError, images, references

DOCKERFILE = "ARG BASE_IMAGE=docker.io/library/alpine\nFROM ${BASE_IMAGE}\nARG A=1 B\nCOPY . /\n"


@pytest.mark.parametrize(
    ("text", "out", "left"),
    [
        ("*.log", ["a.log"], ["a/b.log", "log"]),
        ("**/*.log", ["a.log", "a/b.log"], ["a.logs"]),
        ("node_modules", ["node_modules", "node_modules/a/b"], ["a/node_modules"]),
        ("/build/", ["build", "build/a"], ["builds", "a/build"]),
        ("./a/../b", ["b"], ["a"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab"]),
        ("a/**/c", ["a/c", "a/b/c", "a/b/b/c/d"], ["a/b", "ac"]),
        ("a?c", ["abc"], ["ac", "a/c"]),
        ("[ab].txt", ["a.txt", "b.txt"], ["c.txt"]),
        ("# a\n\n  b  \n", ["b"], ["a", "# a"]),
        ("*\n!keep.txt\n!src/*.js", ["a", "src/a.ts"], ["keep.txt", "src/a.js"]),
        ("!a\n*", ["a"], []),
        ("docs\n!docs/README.md\ndocs/R*", ["docs/README.md", "docs/a"], ["README.md"]),
        ("a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt"]),
        ("a\\*b", ["a*b"], ["axb"]),
    ],
)
def test_what_a_dockerignore_leaves_out(text: str, out: list[str], left: list[str]) -> None:
    rules = patterns(text)
    assert [path for path in out if not ignored(path, rules)] == []
    assert [path for path in left if ignored(path, rules)] == []


def test_files_below_ignored_folders_come_back(tmp_path: Path) -> None:
    for path in ("a/keep/x", "a/drop/x", "b/c/d.md", "e"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert sorted(path for path, _rest in files(tmp_path, patterns("*\n!a/keep"))) == ["a/keep/x"]
    assert sorted(path for path, _rest in files(tmp_path, patterns("*\n!**/*.md"))) == ["b/c/d.md"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "Shop App"
    (folder / "src").mkdir(parents=True)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".dockerignore").write_text("*.log\n")
    (folder / "src" / "main").write_text("1")
    (folder / "a.log").write_text("1")
    (folder / "link").symlink_to("src/main")
    return folder


def made(context: Path, common: dict[str, Any] | None = None, **build: Any) -> dict[str, Any]:
    builds = [{"name": "shop", "context": str(context), **build}]
    return images(builds, "", common or {}, "/", "/applications")[0]


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "content": (lambda folder: (folder / "src/main").write_text("2"), True),
    "name": (lambda folder: (folder / "src/main").rename(folder / "src/other"), True),
    "who may execute": (lambda folder: (folder / "src/main").chmod(0o755), True),
    "who may read": (lambda folder: (folder / "src/main").chmod(0o600), True),
    "a link": (lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("src")), True),
    "Dockerfile": (lambda folder: (folder / "Dockerfile").write_text(f"{DOCKERFILE}USER 1"), True),
    "a new file": (lambda folder: (folder / "new").touch(), True),
    "what is ignored": (lambda folder: (folder / "a.log").write_text("2"), False),
    "time": (lambda folder: os.utime(folder / "src/main", (1, 1)), False),
    "who may write": (lambda folder: (folder / "src/main").chmod(0o664), False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tag_changes_with_what_the_image_is_made_of(context: Path, change: str) -> None:
    (context / "src/main").chmod(0o644)
    before = made(context)
    assert made(context) == before
    assert before["repository"] == "localhost/shop-app"
    apply, changes = CHANGES[change]
    apply(context)
    assert (made(context)["tag"] != before["tag"]) == changes


def test_a_tag_changes_with_how_the_image_is_built(context: Path) -> None:
    (context / "Other").write_text(DOCKERFILE)
    ways: list[dict[str, Any]] = [
        {},
        {"args": {"A": 1}},
        {"args": {"A": 2}},
        {"args": {"B": 2}},
        {"target": "one"},
        {"platform": "linux/arm64"},
    ]
    tags = {made(context, **way)["tag"] for way in ways}
    assert len(tags) == len(ways)
    assert made(context, args={"A": "2"}) == made(context, {"A": 2, "NOBODYS": 1})
    assert made(context, args={"A": "3"}) == made(context, {"A": 2}, args={"A": "3"})
    # How a build reaches its sources is no part of what it makes.
    assert made(context, args={"https_proxy": "http://proxy"})["tag"] == made(context)["tag"]


def test_the_same_build_is_one_image(context: Path) -> None:
    builds = [{"name": name, "context": "shop/../Shop App"} for name in ("a", "b")]
    found = images(
        [*builds, {"name": "c", "context": "$(APPLICATIONS)", "args": {"A": 2}}],
        "r.io:5000/x",
        {},
        str(context.parent),
        str(context),
    )
    assert [image["names"] for image in found] == [["a", "b"], ["c"]]
    names = references(found)
    assert names["a"] == names["b"] != names["c"]
    assert names["a"].startswith("r.io:5000/x/shop-app:")


def test_every_mistake_is_told_at_once(context: Path) -> None:
    builds = [
        {"name": "a", "context": "nowhere"},
        {"name": "b", "context": str(context), "dockerfile": "Containerfile"},
        {"name": "c", "context": str(context), "args": {"C": 1}},
        {"name": "d", "context": str(context), "repository": "Shop"},
    ]
    with pytest.raises(BuildError) as raised:
        images(builds, "https://registry", {}, str(context.parent), "/")
    assert str(raised.value).splitlines() == [
        (
            "images_registry: 'https://registry' is not allowed; give host, port and path without a scheme, such as "
            "registry.example.com:5000/shop"
        ),
        (
            f"images_builds[0] (a).context: 'nowhere' is not a folder here ({context.parent}/nowhere); give the folder "
            "of the sources"
        ),
        (
            f"images_builds[1] (b).dockerfile: 'Containerfile' is not in {context}; give the path of a Dockerfile, "
            "relative to the context"
        ),
        "images_builds[2] (c).args.C: the Dockerfile has no ARG of this name; it has: A, B, BASE_IMAGE",
        (
            "images_builds[3] (d).repository: 'Shop' is not allowed; give small letters and digits, with single '.', "
            "'_' or '-' in between"
        ),
    ]
