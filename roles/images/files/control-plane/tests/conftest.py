# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the code under test is: this folder, and the collection whose modules it uses."""

import os
import sys
from pathlib import Path

APP = Path(__file__).resolve().parent.parent
COLLECTIONS = APP.parents[3] / ".collections"
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
sys.path[:0] = [str(APP), str(APP / "tests"), str(COLLECTIONS)]
