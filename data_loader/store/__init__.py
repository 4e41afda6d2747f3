"""Features packed once into few large arrays, mapped from disk afterwards."""
