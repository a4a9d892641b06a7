"""CIFAR-10: 32x32 images and a pixel model."""
