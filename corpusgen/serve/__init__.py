"""The service: a recording gateway for OpenAI and Anthropic clients, an API, and pages to look at."""
