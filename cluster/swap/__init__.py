"""Exchange the bundle of a running endpoint without downtime: promote, roll back, and look.

Which bundles a service has is its user_config in Ray Serve, a `cluster.serve.rollout.Rollout`. Each replica follows a
change without a restart and reports what it answers with.
"""
