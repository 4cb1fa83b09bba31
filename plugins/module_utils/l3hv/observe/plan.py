"""The plan of a host as the module gets it, and the names of address families in it."""

from __future__ import annotations

import socket
from typing import Any

Plan = dict[str, Any]
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
