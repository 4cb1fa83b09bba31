"""Run a command in all namespaces of a machine: ``python -IS enter.py PID COMMAND …``.

nsenter(1) stops itself when its child is stopped.  At a reboot systemd stops all processes before it ends
them.  The child of a stopped nsenter then stays a zombie, and the kernel keeps a PID namespace, with its
init, until the last process in it is reaped.  With this program the kernel itself reaps the process in the
machine, even while the process outside is stopped; a pipe carries the exit status.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import NoReturn

# CLONE_NEW… of Linux: mounts, control groups, UTS, IPC, PIDs, network.  Machines have no user namespace.
NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000
PR_SET_NAME = 15
CANNOT_RUN = 127
MACHINE_ENDED = 255

_libc = ctypes.CDLL(None, use_errno=True)


def main(words: list[str]) -> int:
    """Run ``words[1:]`` in the machine whose init has the PID ``words[0]``, and return its exit status.

    If a signal ends the command, the same signal ends this process.
    """
    leader, command = int(words[0]), words[1:]
    try:
        init = os.pidfd_open(leader)
        if _libc.setns(init, NAMESPACES) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        os.close(init)
    except OSError as error:
        print(f"twin: cannot enter the machine ({error.strerror}): it may be shutting down", file=sys.stderr)
        return MACHINE_ENDED
    # The kernel reaps the children of a process that ignores SIGCHLD, so this process need not wait for them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    reading_end, writing_end = os.pipe()
    if os.fork() == 0:
        os.close(reading_end)
        _run_and_report(writing_end, command)
    os.close(writing_end)
    # The terminal sends these signals to the command too, and the command may continue.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    answer = os.read(reading_end, 32)
    if not answer:
        print("twin: the machine went down before the command ended", file=sys.stderr)
        return MACHINE_ENDED
    status = int(answer)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status)


def _run_and_report(report: int, command: list[str]) -> NoReturn:
    """Run a command as its parent in the machine, reap it, and write its wait status to ``report``."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        child = os.fork()
        if child == 0:
            _run(command)
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        _hide()
        os.write(report, str(os.waitpid(child, 0)[1]).encode())
    finally:
        os._exit(0)


def _run(command: list[str]) -> NoReturn:
    # Python ignores SIGPIPE, and the command would inherit this.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    environment = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "LOGNAME": "root",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/bash",
        "TERM": os.environ.get("TERM", "dumb"),
        "USER": "root",
    }
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        os.write(2, f"twin: cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(CANNOT_RUN)


def _hide() -> None:
    """Hide this process's command line, so that pgrep in the machine finds the command only once."""
    # A text file would need an encoding module, and Python's library is outside of the machine.
    with open("/proc/self/stat", "rb") as stat:
        start, end = stat.read().rpartition(b")")[2].split()[45:47]
    ctypes.memset(int(start), 0, int(end) - int(start))
    _libc.prctl(PR_SET_NAME, b"twin-exec", 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
