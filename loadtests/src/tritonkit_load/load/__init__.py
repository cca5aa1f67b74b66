"""Load tests: what to send, sending it, and what was found. Flat files beside this package are the verbs."""
