"""Ray Train: the ranks as workers, messages between command and ranks, and monitoring."""
