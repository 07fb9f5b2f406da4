"""`python -m cluster.promote BUNDLE`: let another bundle answer, without downtime."""
