"""Bytes on disk: whole files, hashes, tables, images, caches.

Knows nothing of diffusion models.

For other packages: files, sealed, hashing, images, tables, streams, cache, workspace,
provenance.
"""
