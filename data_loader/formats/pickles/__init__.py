"""A pickle machine that builds plain data and never calls what a pickle names."""
