"""What each edge of an adding model carries, found by intervention."""
