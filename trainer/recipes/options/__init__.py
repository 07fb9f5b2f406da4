"""The groups of a recipe's options with their checks, which depend on values alone, never on the machine."""
