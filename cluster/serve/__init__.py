"""The endpoint: a bundle behind HTTP.

`python -m cluster.serve BUNDLE` and `serve run cluster.serve.app:build bundle=PATH` deploy the same application. A
picture is checked against the limits, decoded and resized in a thread of its replica, and then joins a batch with other
waiting requests; a refused picture never joins one.
"""
