# Copyright: (c) 2026, sidecar.mesh contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in a Helm chart: a .tgz, or a folder."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

try:
    import yaml

    HAS_YAML = True
except ImportError:
    HAS_YAML = False

_TEXTS = ("templates/", "files/")
"""Folders whose files may read values."""


class ChartError(Exception):
    """There is no chart, or one that cannot be read."""


@dataclass(frozen=True)
class Chart:
    """``metadata``: Chart.yaml; ``values``: values.yaml; ``schema``: values.schema.json; ``templates``: texts."""

    metadata: dict[str, Any]
    values: dict[str, Any]
    schema: dict[str, Any] = field(default_factory=dict)
    templates: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        """Names under which values of the charts it depends on stand."""
        found = self.metadata.get("dependencies") or []
        return [str(part.get("alias") or part["name"]) for part in found]


def read_chart(path: str) -> Chart:
    """Raises ChartError."""
    files = dict(_files(Path(path)))
    if "Chart.yaml" not in files:
        raise ChartError(f"{path} has no Chart.yaml; give a chart's .tgz or its folder")
    try:
        return Chart(
            _mapping(_parse(files["Chart.yaml"])),
            _mapping(_parse(files.get("values.yaml", ""))),
            _mapping(json.loads(files.get("values.schema.json") or "{}")),
            [text for name, text in sorted(files.items()) if name.startswith(_TEXTS)],
        )
    except (ValueError, yaml.YAMLError) as exc:
        raise ChartError(f"{path} cannot be read: {exc}") from exc


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe loader)


def _mapping(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Texts of a chart by their paths in it."""
    try:
        if path.is_dir():
            for file in path.rglob("*"):
                if file.is_file():
                    yield file.relative_to(path).as_posix(), file.read_text(encoding="utf-8", errors="replace")
            return
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.partition("/")[2], content.read().decode(errors="replace")
    except OSError as exc:
        raise ChartError(f"{path} cannot be read: {exc.strerror}; give a chart's .tgz or its folder") from exc
    except tarfile.TarError as exc:
        raise ChartError(f"{path} is no archive; give a chart's .tgz or its folder") from exc
