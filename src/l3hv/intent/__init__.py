"""From the variables of an inventory to facts: read, checked, and reported together where they are wrong."""
