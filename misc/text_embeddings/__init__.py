"""Text features from raw captions: word vectors, MIL-NCE, Hugging Face encoders.

`captions` reads what is to be encoded, `encoders` chooses among `word_tables`, `mil_nce` and
`hugging_face`, each of which turns captions into token ids and brings the network that turns those
into vectors; `encoding` runs it chunk by chunk, `output` keeps the chunks and puts the file
together.
"""
