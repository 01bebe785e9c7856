"""Sources of tokens: models in this process, models behind a server, and recorded traces."""
