"""Whether variants of a recipe differ: runs with several seeds, compared on the same pictures."""
