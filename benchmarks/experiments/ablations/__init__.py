"""What each part of a recipe brings: the whole one, and the same without one part, on the same base models."""
