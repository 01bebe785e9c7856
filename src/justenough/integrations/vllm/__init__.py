"""The gate inside vLLM: a logits processor for both of its model runners, and an endpoint for the decisions."""
