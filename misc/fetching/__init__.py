"""Fetching of published features and checkpoints: catalogue, download, unpacking, placing.

`misc/sync_experts.py` is its command line.
"""
