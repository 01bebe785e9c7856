"""A client of the `openai` library whose thoughts are gated in this process, without a server."""
