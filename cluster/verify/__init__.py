"""Compares what an endpoint answers with what a bundle answers in process, picture by picture."""
