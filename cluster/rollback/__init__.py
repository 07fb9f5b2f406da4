"""`python -m cluster.rollback`: go back to the bundle before, or end the trial of one."""
