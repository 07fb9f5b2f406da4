"""The classifier: backbone, head, features, names, normalisation, class activation maps.

Serving imports it.
"""
