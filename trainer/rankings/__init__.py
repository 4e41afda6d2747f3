"""Single rankings, for the page and the trackers: what they are made of, and what misled them."""
