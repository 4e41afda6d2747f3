"""Measurements of time and memory, for people; no test runs them."""
