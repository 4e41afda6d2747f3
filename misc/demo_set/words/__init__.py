"""What is said of a clip: the world's words, captions, word vectors, and words read and heard."""
