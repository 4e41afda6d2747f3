"""The demo set: a small world of short clips with experts, captions, word vectors and videos."""

from misc.demo_set.make import make_demo_set

__all__ = ["make_demo_set"]
