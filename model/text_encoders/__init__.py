"""Encoders of captions: from token ids to a vector for each token, or for each caption.

Legend: B captions of a batch, T tokens of each (all of one length: there is no padding), D size.
"""
