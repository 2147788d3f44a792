"""docs/speed.svg: one line over a logarithmic axis, in colours for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.measuring import ROOT

SVG = ROOT / "docs" / "speed.svg"
WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
# A page shows the picture as an image, so that its own colours do not reach it.
STYLE = """\
text { font: 13px sans-serif; fill: #24292f }
.title { font-weight: bold }
.axis { stroke: #8c959f; stroke-width: 1 }
.line { fill: none; stroke: #0969da; stroke-width: 2 }
.point { fill: #0969da }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .axis { stroke: #6e7681 }
  .line { stroke: #58a6ff }
  .point { fill: #58a6ff }
}"""


def write(title: str, unit: str, points: Sequence[tuple[int, float]]) -> None:
    """``points``: a value for each number of services."""
    SVG.write_text(picture(title, unit, points), encoding="utf-8")


def picture(title: str, unit: str, points: Sequence[tuple[int, float]]) -> str:
    first, last = math.log(points[0][0]), math.log(points[-1][0])
    top = math.ceil(max(value for _size, value in points) + 0.5)

    def place(size: int, value: float) -> tuple[float, float]:
        x = LEFT + (math.log(size) - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return round(x, 1), round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 1)

    floor = HEIGHT - BOTTOM
    line = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
    parts = [
        f'<text class="title" x="{LEFT}" y="22">{title}, {unit}</text>',
        f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{floor}H{WIDTH - RIGHT}"/>',
        *(f'<text x="{LEFT - 8}" y="{place(1, v)[1] + 4}" text-anchor="end">{v}</text>' for v in range(top + 1)),
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">services</text>',
        f'<polyline class="line" points="{line}"/>',
    ]
    for size, value in points:
        x, y = place(size, value)
        parts += [
            f'<circle class="point" cx="{x}" cy="{y}" r="4"/>',
            f'<text x="{x}" y="{y - 10}" text-anchor="middle">{value:.2f}</text>',
            f'<text x="{x}" y="{floor + 18}" text-anchor="middle">{size:,}</text>',
        ]
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">\n'
        f"<style>\n{STYLE}\n</style>\n{body}\n</svg>\n"
    )
