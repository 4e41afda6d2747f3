"""Makes a data set of other people's files: captions, lists of videos, features."""
