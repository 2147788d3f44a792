"""From inventory to text, in one process: the model, the builders and the YAML of every file."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.sidecar.mesh.plugins.module_utils.envoy_yaml import load
from ansible_collections.sidecar.mesh.plugins.module_utils.files import mesh_files
from ansible_collections.sidecar.mesh.plugins.module_utils.model import build_model

from bench import inventories, plot
from bench.measuring import Row, processor_time

SIZE = 1000
GROWTH = (10, 30, 100, 300, 1000, 3000, 5000)
STYLE: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "width": 2**31 - 1}


def make(inventory: dict[str, Any]) -> list[str]:
    """The text of every file."""
    settings = {"engine": inventory["mesh_engine"]}
    model = build_model(inventory["mesh_services"], inventory["mesh_front_proxies"], settings)
    return [text for proxy in mesh_files(model) for text in proxy["files"].values()]


def rows() -> list[Row]:
    inventory = inventories.mesh(SIZE)
    texts = make(inventory)
    dumper = emitter = ours = float("inf")
    for _repetition in range(3):
        gc.collect()
        ours = min(ours, processor_time(lambda: make(inventory)))
    for _repetition in range(2):
        dumper = min(dumper, sum(map(_dumper_time, texts)))
        emitter = min(emitter, sum(map(_emitter_time, texts)))
    size = f"{sum(map(len, texts)) / 1e6:.0f} MB in {len(texts):,} files"
    what = f"Model and all configs of {SIZE:,} services x {inventories.UPSTREAMS} upstreams ({size})"
    points = list(growth())
    plot.write("Cost of a service", "milliseconds", points)
    small, *_rest, large = points
    bare, full = _peak(0), _peak(SIZE)
    return [
        Row(what, ours, "PyYAML's CSafeDumper (libyaml) writes the same data", dumper, 1.0),
        Row("the same", ours, "libyaml's emitter alone, its events ready-made", emitter),
        Row(f"A service of {large[0]:,}", large[1], f"a service of {small[0]:,}", small[1], 1.5, "ms"),
        Row(f"Peak memory with {SIZE:,} services", full, "without a service", bare, unit="MB"),
    ]


def growth() -> Iterator[tuple[int, float]]:
    """Milliseconds a service, by the number of services."""
    for size in GROWTH:
        inventory = inventories.mesh(size)
        make(inventory)
        times = []
        for _repetition in range(max(2, min(20, 3000 // size))):
            gc.collect()
            times.append(processor_time(lambda: make(inventory)))  # noqa: B023 - called at once
        yield size, min(times) / size * 1000


def _dumper_time(text: str) -> float:
    data = load(text)
    return processor_time(lambda: yaml.dump(data, Dumper=yaml.CSafeDumper, **STYLE))


def _emitter_time(text: str) -> float:
    events = list(yaml.parse(text, Loader=yaml.CSafeLoader))
    style = {key: STYLE[key] for key in ("allow_unicode", "width")}
    return processor_time(lambda: yaml.emit(events, Dumper=yaml.CSafeDumper, **style))


def _peak(size: int) -> float:
    """Megabytes a process of its own had at most."""
    code = f"from bench import generator; print(generator.peak({size}))"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def peak(size: int) -> float:
    """Of this process, after it made a mesh. The resource usage that Python tells begins with its parent's."""
    if size:
        make(inventories.mesh(size))
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return round(int(line.split()[1]) / 1024)
