"""`python -m cluster.doctor`: whether the nodes of a Ray cluster, or this machine, are fit for a run.

Facts are read on the nodes as plain dicts; verdicts are pure functions over the facts of all nodes.
"""
