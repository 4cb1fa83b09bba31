"""The convergence of a set of files by the module ``config_files``, in the order of its steps.

- ``config_set``: the set; ``lock``: the lock of its run, which each set renews.
- ``placing`` (``state: present``): wanted and found ``files``, their ``validation``, their ``diffs``.
- ``transaction``: the previous files, which are kept until the change is active.
- ``activation`` (``state: active``), which rolls back if it fails.
- ``commands`` and ``units``: the commands and systemd units of a set; ``refused``: the reason to stop.
"""
