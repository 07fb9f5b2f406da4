"""The package's command line, one module per command."""
