"""The step from the slice of one host to its plan, with all decisions about networking."""
