"""The command line of this package, a module for each command."""
