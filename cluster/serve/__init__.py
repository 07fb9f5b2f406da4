"""The endpoint: a bundle behind HTTP.

`python -m cluster.serve BUNDLE` and `serve run cluster.serve.app:build bundle=PATH` deploy the same application. A
request passes the limits, decode and geometry in a thread of its replica, and then enters a batch with whoever else
is waiting; a picture that is refused on the way never enters one.
"""
