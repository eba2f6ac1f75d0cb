"""Retrieval quality of a bundle on a dataset, and how far two bundles agree. Needs the extra `evaluate`, never torch."""
