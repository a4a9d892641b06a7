"""What comes from the network: files, models, pictures; checked, resumed, and never under ``--offline``."""
