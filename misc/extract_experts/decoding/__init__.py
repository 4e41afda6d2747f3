"""Decoding: a file from front to end, in a limited process of its own."""
