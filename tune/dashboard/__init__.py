"""The W&B dashboard of a sweep: its last run, a workspace and a report."""
