"""Text features from raw captions: word vectors, MIL-NCE, Hugging Face encoders.

`captions` reads what is to be encoded, `encoders` chooses between `word_encoders` and
`hugging_face`, each of which turns captions into token ids and brings the network that turns those
into vectors: a `job`. `encoding` runs it chunk by chunk, `output` keeps the chunks and puts the
file together. `misc/prepare_text_embeddings.py` is the command line.
"""
