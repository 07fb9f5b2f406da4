"""`tune.compare`: variants of a recipe against a baseline, from the answers of their runs."""
