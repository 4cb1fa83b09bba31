"""Read the variables of an inventory, check them, and report all their problems together."""
