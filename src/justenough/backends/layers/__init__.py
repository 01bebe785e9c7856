"""Early exits on a checkpoint in Hugging Face form: a token leaves the network at the first confident layer.

CALM (arXiv 2207.07061) and DeeBERT (arXiv 2004.12993) save layers; the rest of this library saves tokens. `leaving`
decides when a token exits, `network` runs the layers one by one, and `backend` is the backend.
"""
