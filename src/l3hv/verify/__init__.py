"""The expected state of a fabric, the state that was found, and the differences."""
