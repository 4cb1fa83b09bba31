"""The convergence of a set of files by the module ``config_files``, in the order of its steps.

- ``config_set``: the set; ``lock``: the lock of its run, which each set renews.
- ``placing`` (``state: present``): ``files`` as wanted and as found, their ``validation``, their ``diffs``.
- ``transaction``: what was there before, until the change is active.
- ``activation`` (``state: active``), which goes back where it fails.
- ``commands`` and ``units``: what they run and ask on the host; ``refused``: the reason to stop.
"""
