"""Images to vectors: SSCD, its 8-bit export, CLIP, pixels.

For other packages: loading; clip and sscd for what a task downloads."""
