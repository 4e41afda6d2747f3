"""The folder of an index: what lies where, and how it changes so that a kill loses nothing.

    index.json              what the index is, which parts it has, which videos were removed
    model-<token>/          model.pth, the text encoder's files, the bank of training captions
    part-<token>/           videos added together: whole.packed, half.packed, videos.packed

Everything but `index.json` is written once, under a name of its own, and never changed. What counts
is what `index.json` names: it is replaced as the last step, and what it no longer names is removed
after that. One who has an index open keeps its files, whatever happens to their names.

A part holds its videos ordered by pattern: those with the same experts stand together, as a matrix
of the embeddings of just these experts beside one another. `whole` has them in float32, `half` in
float16 (divided by `scale`, a power of two, so that large values fit).

Axes: N videos, E embeddings of a video (its M experts, or 1 where these share one), D their sizes.
"""
