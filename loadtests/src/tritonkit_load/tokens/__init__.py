"""Load on language models: streams of tokens from both endpoints, and what their times say."""
