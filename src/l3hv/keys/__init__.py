"""Secrets of BGP sessions, and their rotation."""
