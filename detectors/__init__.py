"""The detectors: one file a paper. Imported as ``membench.detectors``."""
