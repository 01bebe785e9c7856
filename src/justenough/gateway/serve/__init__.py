"""How a request is served: relayed, streamed or step by step."""
