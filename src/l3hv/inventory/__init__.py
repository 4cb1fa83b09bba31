"""Inventories as Ansible resolves them, and the memory that makes a run linear in what it touches."""
