"""`python -m trainer.run`: start a run on this machine or on Ray, finish it, or try it out.

Imports all other rooms of `trainer`; imported by `tune`.
"""
