"""Pictures for the recipes: real ones written as a folder, or drawn look-alikes. Each module is a command."""
