"""Faults of a set of pictures: unreadable files, duplicates, leaks between splits, conflicting labels."""
