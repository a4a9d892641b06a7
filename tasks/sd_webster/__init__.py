"""Stable Diffusion: which captions return training images (Webster 2023)."""
