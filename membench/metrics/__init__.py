"""Pure functions: arrays in, rows out. They read no file and ask no model.

For other packages: every module."""
