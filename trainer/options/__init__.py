"""The groups of options of a recipe, each with its checks; values alone, never the machine."""
