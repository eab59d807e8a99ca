"""Published models tuned with `keeptune tune`, and what a chat model keeps of its base."""
