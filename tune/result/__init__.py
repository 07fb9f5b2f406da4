"""The folder of a sweep: what it belongs to, and what a sweep that has ended found."""
