"""The frozen split language model, the prompt generators, and what joins them."""
