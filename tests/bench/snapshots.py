"""Prints what the control plane sends for the folders that are published in $FOLDER, for go-control-plane to read."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from ansible_collections.sidecar.mesh.plugins.module_utils.aggregated import asked_for, assignments, read, sent
from control_plane import machine, snapshots
from control_plane.encode import TYPE_URLS

folder, suffix = Path(os.environ["FOLDER"]), sys.argv[1]
replicas = machine.replicas(folder / "zone.json")
for name, entry in machine.published(folder / "control-plane" / "published.json").items():
    found = machine.folder(entry)
    if found is None:
        raise SystemExit(f"{name} is not as it was published")
    resources = read(found.files)
    asked = asked_for(resources, suffix)
    whole = sent(resources, asked)
    made = snapshots.snapshot({**whole, "endpoints": {**whole["endpoints"], **assignments(asked, replicas)}})
    values = {
        TYPE_URLS[kind]: {item.name: base64.b64encode(item.value).decode() for item in items.values()}
        for kind, items in made.items()
    }
    print(json.dumps({"proxy": name, "resources": values}))
