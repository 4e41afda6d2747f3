"""Several processes compute what one computes: they share batches and retrieval sets."""
