"""Initial weights: where they are found, their naming schemes, and the preprocessing they expect."""
