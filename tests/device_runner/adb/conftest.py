"""The test device for all tests of adb."""

from __future__ import annotations

import sys
from pathlib import Path

# Last on the path: nothing else may come from tests/ by accident.
sys.path.append(str(Path(__file__).parents[2]))

from testdevice.fixtures import _shared_device, adb_server, built_device, device, new_device

__all__ = ["_shared_device", "adb_server", "built_device", "device", "new_device"]
