"""The command line: one module a command.

For other packages: main."""
