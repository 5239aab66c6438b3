"""Is what is left a winning ticket? Masks on heads and neurons, trained again from many starts."""
