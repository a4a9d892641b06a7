"""Finished runs to data frames that compare them. Prints nothing.

For other packages: every module."""
