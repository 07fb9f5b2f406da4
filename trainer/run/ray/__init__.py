"""Ray Train: the ranks as workers, what command and ranks write to each other, and who watches."""
