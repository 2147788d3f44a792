# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""References of images that are built here, known before they are: their tags are digests of what they are built from.

An image is a dict with ``reference``, ``repository``, ``tag``, ``names`` (of the builds that share it), ``context``,
``dockerfile``, ``ignore_file``, ``args``, ``target`` and ``platform``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible_collections.sidecar.mesh.plugins.module_utils.build_context import digest, ignore_file

Item = dict[str, Any]

APPLICATIONS = "$(APPLICATIONS)"
"""Stands for the folder of the shipped applications, as it does in commands of engine local."""

LOCAL = "localhost"
"""Where references of images begin that no registry has."""

TAG_LENGTH = 16

# Source: distribution/reference, "Grammar"; of a path's component.
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_REGISTRY = re.compile(r"[a-zA-Z0-9.\-]+(:[0-9]+)?(/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_ARG = re.compile(r"^[ \t]*ARG[ \t]+(.+)$", re.IGNORECASE | re.MULTILINE)
_ARG_NAME = re.compile(r"(?:^|\s)([A-Za-z_][A-Za-z0-9_]*)(?==|\s|$)")
# How a build reaches its sources, not what it is made of. Source: Docker docs, "Predefined ARGs".
_PREDEFINED = {f"{kind}_proxy" for kind in ("http", "https", "ftp", "no", "all")}


class BuildError(Exception):
    """What is wrong with the builds, one problem a line."""


def images(builds: list[Item], registry: str, args: Item, folder: str, applications: str) -> list[Item]:
    """The images that builds ask for, each once, in the order of their first mention.

    ``args``: for every Dockerfile that declares them; ``folder``: where relative contexts start; ``applications``: what
    ``$(APPLICATIONS)`` stands for. Raises BuildError.
    """
    problems = [] if not registry or _REGISTRY.fullmatch(registry) else [_registry_problem(registry)]
    found: dict[str, Item] = {}
    for index, build in enumerate(builds):
        context = Path(folder, str(build["context"]).replace(APPLICATIONS, applications)).resolve()
        dockerfile = context / (build.get("dockerfile") or "Dockerfile")
        repository = build.get("repository") or re.sub(r"[^a-z0-9]+", "-", context.name.lower()).strip("-")
        wrong = list(_problems(f"images_builds[{index}] ({build['name']})", build, context, dockerfile, repository))
        problems += wrong
        if not wrong:
            image = _image(build, context, dockerfile, f"{registry or LOCAL}/{repository}", args)
            found.setdefault(image["reference"], image)["names"].append(build["name"])
    if problems:
        raise BuildError("\n".join(problems))
    return list(found.values())


def references(made: list[Item]) -> dict[str, str]:
    """The reference of each build's image."""
    return {name: image["reference"] for image in made for name in image["names"]}


def _image(build: Item, context: Path, dockerfile: Path, repository: str, args: Item) -> Item:
    known = declared(dockerfile.read_text(encoding="utf-8"))
    own = {name: text(value) for name, value in (build.get("args") or {}).items()}
    every = {name: text(value) for name, value in args.items() if name in known} | own
    hashed = {name: value for name, value in every.items() if name.lower() not in _PREDEFINED}
    target, platform = build.get("target") or "", build.get("platform") or ""
    tag = digest(context, dockerfile, [hashed, target, platform])[:TAG_LENGTH]
    ignore = ignore_file(context, dockerfile)
    return {
        "reference": f"{repository}:{tag}",
        "repository": repository,
        "tag": tag,
        "names": [],
        "context": str(context),
        "dockerfile": str(dockerfile),
        "ignore_file": str(ignore) if ignore else "",
        "args": every,
        "target": target,
        "platform": platform,
    }


def _problems(path: str, build: Item, context: Path, dockerfile: Path, repository: str) -> Iterator[str]:
    if not context.is_dir():
        yield f"{path}.context: {build['context']!r} is not a folder here ({context}); give the folder of the sources"
        return
    if not _REPOSITORY.fullmatch(repository):
        yield (
            f"{path}.repository: {repository!r} is not allowed; give small letters and digits, with single '.', '_' or "
            "'-' in between"
        )
    if not dockerfile.is_file():
        name = build.get("dockerfile") or "Dockerfile"
        yield f"{path}.dockerfile: {name!r} is not in {context}; give the path of a Dockerfile, relative to the context"
        return
    known = declared(dockerfile.read_text(encoding="utf-8"))
    for name in build.get("args") or {}:
        if name not in known and name.lower() not in _PREDEFINED:
            has = ", ".join(sorted(known)) or "none"
            yield f"{path}.args.{name}: the Dockerfile has no ARG of this name; it has: {has}"


def _registry_problem(registry: str) -> str:
    return (
        f"images_registry: {registry!r} is not allowed; give host, port and path without a scheme, such as "
        "registry.example.com:5000/shop"
    )


def declared(dockerfile: str) -> set[str]:
    """Names of the build args that a Dockerfile takes."""
    return {name for match in _ARG.finditer(dockerfile) for name in _ARG_NAME.findall(match[1])}


def text(value: Any) -> str:
    """A build arg as builders take it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
