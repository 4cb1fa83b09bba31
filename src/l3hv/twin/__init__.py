"""The twin: the machines of an inventory, booted as containers on one Linux host.

Importing this package needs only the standard library of Python.
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
    "zstd",
)
"""Debian packages that the twin needs on its host."""


class TwinError(Exception):
    """An error of the twin; the message has the problem and the remedy."""
