"""The plan of a host as an argument of the module, and the address families that it names."""

from __future__ import annotations

import socket
from typing import Any

Plan = dict[str, Any]
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
