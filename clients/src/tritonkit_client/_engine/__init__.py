"""What happens between a call of the caller's and its attempts: operations, servers, retries, hedging, events."""
