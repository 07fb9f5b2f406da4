"""`python -m cluster.status`: which bundles a running endpoint has, and what its replicas do."""
