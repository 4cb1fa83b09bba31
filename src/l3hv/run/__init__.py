"""One run of a playbook: its name, its lock, what it removes, and its files on the controller."""
