"""The demo set: a small world of short clips with experts, captions, word vectors and videos."""
