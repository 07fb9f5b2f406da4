"""Pictures for the recipes: real ones laid out as a folder, or drawn look-alikes; each a command."""
