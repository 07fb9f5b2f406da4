"""The second half of a sweep: what is confirmed, with which seeds, and what the test split says of it."""
