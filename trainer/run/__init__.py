"""`python -m trainer.run`: start a run where it belongs, finish it, or rehearse it.

Imports all other rooms of `trainer`; `tune` imports it.
"""
