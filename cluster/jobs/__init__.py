"""Commands as jobs of a Ray cluster: what goes along, a check on the cluster, their logs and their exit codes."""
