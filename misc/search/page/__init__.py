"""The search as a page in a browser: its server, stills of videos, an animated picture of it."""
