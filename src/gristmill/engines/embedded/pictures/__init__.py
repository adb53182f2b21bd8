"""Images in prompts: read from requests, and made runs of token ids of their own."""
