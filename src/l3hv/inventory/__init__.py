"""Inventories as Ansible resolves them, and the index that keeps the cost of a run linear in its hosts."""
