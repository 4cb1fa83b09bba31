"""Sentences for files of a host that cannot be written or removed."""

from __future__ import annotations

import errno
import os


def unwritable(path: str, error: OSError, done: str) -> str:
    """Return a sentence about a file that cannot be ``done`` (written or removed): host, reason and remedy.

    Programs of roles have shorter sentences: each of these programs is a single file on the host.
    """
    if error.errno == errno.EISDIR:
        return (
            f"{path} on {os.uname().nodename} is a directory in the place of a file of l3hv: move it away,"
            " and run again"
        )
    sentence = f"{path} cannot be {done} on {os.uname().nodename}: {error.strerror}"
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return sentence
    directory = path
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    show = f"`findmnt --target {directory}`, `df -h {directory}` and `df -i {directory}` show its file system"
    remedy = "make room"
    if error.errno == errno.EROFS:
        remedy = "look at `journalctl -k` for errors of the disk before it is mounted writable"
    return f"{sentence}. {show}: {remedy}, and run again"
