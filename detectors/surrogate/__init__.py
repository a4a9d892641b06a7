"""What SIDE trains: surrogate conditions and surrogate models (Chen et al., AAAI 2026)."""
