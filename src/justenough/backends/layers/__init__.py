"""Layer exits on a checkpoint in Hugging Face form: a token leaves the network at the layer that is sure of it.

CALM (arXiv 2207.07061) and DeeBERT (arXiv 2004.12993) save layers where the rest of this library saves tokens.
`leaving` says when a token leaves, `network` runs the layers one by one, `backend` is the door.
"""
