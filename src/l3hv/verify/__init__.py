"""The expected state of a fabric, the state that is found, and the difference."""
