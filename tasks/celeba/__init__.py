"""CelebA: faces and a pixel model."""
