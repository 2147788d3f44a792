# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted, as Prometheus reads it. Source: Prometheus docs, "Exposition formats"."""

from collections import Counter
from collections.abc import Iterable, Mapping

PUSH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_PREFIX = "control_plane_"


class Metrics:
    """Counters since the start; keys are the values of the label."""

    def __init__(self) -> None:
        self.pushes: Counter[str] = Counter()
        self.resources: Counter[str] = Counter()
        self.acknowledged: Counter[str] = Counter()
        self.nacks: Counter[str] = Counter()
        self.streams_refused: Counter[str] = Counter()
        self.types_ignored = 0
        """A client chooses the names of types: too many for a label."""
        self.configurations: Counter[str] = Counter()
        """By result: loaded, failed."""
        self.configuration_failed = False
        self._buckets = [0] * len(PUSH_SECONDS)
        self._count = 0
        self._seconds = 0.0

    def pushed_in(self, seconds: float) -> None:
        """A proxy acknowledged a change, so long after it was made."""
        self._count += 1
        self._seconds += seconds
        for index, limit in enumerate(PUSH_SECONDS):
            self._buckets[index] += seconds <= limit

    def text(self, connected: Mapping[str, int]) -> str:
        """``connected``: proxies by protocol."""
        lines = [
            *_family("connected_proxies", "gauge", "Proxies with an open stream.", "protocol", connected),
            *_family("pushes_total", "counter", "Responses sent.", "type", self.pushes),
            *_family("pushed_resources_total", "counter", "Resources in responses.", "type", self.resources),
            *_family("acknowledged_total", "counter", "Responses acknowledged.", "type", self.acknowledged),
            *_family("nacks_total", "counter", "Responses that a proxy refused.", "type", self.nacks),
            *_family(
                "streams_refused_total", "counter", "Streams ended by the server.", "reason", self.streams_refused
            ),
            *_head("types_ignored_total", "counter", "Types that a stream asked for and nobody serves."),
            f"{_PREFIX}types_ignored_total {self.types_ignored}",
            *_family("configurations_total", "counter", "Configurations read.", "result", self.configurations),
            *_head("configuration_failed", "gauge", "Whether the newest configuration could not be read or encoded."),
            f"{_PREFIX}configuration_failed {int(self.configuration_failed)}",
            *self._histogram(),
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> Iterable[str]:
        name = f"{_PREFIX}push_seconds"
        yield from _head("push_seconds", "histogram", "Time from a change until a proxy acknowledged all of it.")
        for limit, count in zip(PUSH_SECONDS, self._buckets, strict=True):
            yield f'{name}_bucket{{le="{limit}"}} {count}'
        yield f'{name}_bucket{{le="+Inf"}} {self._count}'
        yield f"{name}_sum {self._seconds:.6f}"
        yield f"{name}_count {self._count}"


def _head(name: str, kind: str, text: str) -> Iterable[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"


def _family(name: str, kind: str, text: str, label: str, values: Mapping[str, int]) -> Iterable[str]:
    yield from _head(name, kind, text)
    for value, count in sorted(values.items()):
        yield f'{_PREFIX}{name}{{{label}="{value}"}} {count}'
