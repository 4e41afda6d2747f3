"""Checkpoints: what they hold, how they are written, and other people's, read behind the wall."""
