"""Where the drift sits: in which tokens, which passages, which layers, and what it makes a model write."""
