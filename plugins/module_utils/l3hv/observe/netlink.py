"""The part of pyroute2 that the observation needs; ``IPRoute`` is None on a host without pyroute2."""

from __future__ import annotations

import importlib.util
import sys
import types


def _skip_package_init() -> None:
    """Keep pyroute2 from importing all its modules (HTTP servers, databases), which takes 0.2 s."""
    if "pyroute2" in sys.modules:
        return
    specification = importlib.util.find_spec("pyroute2")
    if specification is not None:
        package = types.ModuleType("pyroute2")
        package.__path__ = list(specification.submodule_search_locations or ())
        sys.modules["pyroute2"] = package


try:
    _skip_package_init()
    from pyroute2.iproute.linux import IPRoute
    from pyroute2.netlink import nlmsg_base
    from pyroute2.netlink.exceptions import NetlinkError
except ImportError:
    IPRoute = nlmsg_base = NetlinkError = None
