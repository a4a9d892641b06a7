"""Bytes on disk: whole files, hashes, tables, images, caches.

Knows nothing of diffusion models.

For other packages: files, hashing, images, tables, cache, workspace, provenance.
"""
