# SPDX-License-Identifier: GPL-3.0-or-later
"""The log: one line of JSON on stdout for each event."""

import datetime
import json
import sys
from typing import Any

MAX_TEXT = 2000
"""Characters of a text that a client sent."""


def log(event: str, **fields: Any) -> None:
    """Such as ``{"time": "2026-01-31T12:00:00.000Z", "event": "connected", …}``."""
    line = {"time": timestamp(), "event": event, **{key: _short(value) for key, value in fields.items()}}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def timestamp() -> str:
    """Now, in UTC to the millisecond."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _short(value: Any) -> Any:
    return value[:MAX_TEXT] if isinstance(value, str) else value
