"""`python -m tune.run`: screen the variants of a space, confirm the best, keep the best bundle."""
