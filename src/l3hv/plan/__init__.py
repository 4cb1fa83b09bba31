"""From the slice of one host to its plan: all decisions about networking are made here."""
