"""What a sweep tries: its file, the variants that come of it, and the recipes of their runs."""
