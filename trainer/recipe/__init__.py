"""What a training may do beyond the published one; all of it is off unless a config asks."""
