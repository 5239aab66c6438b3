"""The deciding experiment: how many heads and edges a task needs."""
