"""Measurements of time and memory, for people: tests do the work, and measure nothing."""
