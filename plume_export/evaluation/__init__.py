"""Retrieval quality of a bundle on a dataset, and agreement of two bundles. Needs the extra `evaluate`, never torch."""
