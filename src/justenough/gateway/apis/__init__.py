"""APIs besides OpenAI's completions: each request as a chat, and the answer to the chat in the form of the API."""
