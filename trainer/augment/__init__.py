"""`python -m trainer.augment`: a contact sheet of pictures before and after augmentation.

The operations themselves are in `trainer.feed.augment`.
"""
