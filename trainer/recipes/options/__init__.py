"""The groups of a recipe's options, each with its checks: of values alone, never of the machine."""
