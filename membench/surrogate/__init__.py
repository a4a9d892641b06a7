"""Surrogate conditions and surrogate models (Chen et al., "SIDE", AAAI 2026), shared by the detectors that guide with them."""
