"""All runs of a folder as pages: gathered from their files, served or written elsewhere."""
