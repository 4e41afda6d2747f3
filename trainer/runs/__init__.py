"""A run is its folder: whose it is, which one is meant, and how it goes on."""
