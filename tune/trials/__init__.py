"""Trials on Ray Tune: one trial, all of a phase with early stopping, their progress and their table."""
