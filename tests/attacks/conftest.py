"""The attacks work on the same standing twin as the tests of the fabric."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

FABRIC = Path(__file__).parents[1] / "fabric"
sys.path.append(str(FABRIC))

_spec = importlib.util.spec_from_file_location("fabric_conftest", FABRIC / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_fabric = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_fabric)

standing = _fabric.standing
lab = _fabric.lab
