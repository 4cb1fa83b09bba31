"""One run of a playbook: its identity, its lock, its removals, and its files on the controller."""
