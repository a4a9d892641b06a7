"""The tasks: one file each. Imported as ``membench.tasks``."""
