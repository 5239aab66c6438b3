"""all-MiniLM-L6-v2 made sparse under a ceiling on its embedding's cosine."""
