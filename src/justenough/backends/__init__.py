"""Where tokens come from: models, local or behind a server, and recorded traces."""
