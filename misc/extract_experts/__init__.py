"""From videos to features: each video is decoded once, and every expert looks at the same."""
