"""The twin: an inventory's machines, booted as real machines on one Linux host.

Importing this package needs nothing but Python's own library.
"""

from __future__ import annotations

HOST_PACKAGES = (
    "busybox-static",
    "debian-archive-keyring",
    "debootstrap",
    "iproute2",
    "iputils-ping",
    "openssh-client",
    "qemu-system-x86",
    "systemd-container",
    "util-linux",
)
"""Debian packages that the twin needs on the host that carries it."""


class TwinError(Exception):
    """Something that the twin cannot do; the message says what is wrong and what to do."""
