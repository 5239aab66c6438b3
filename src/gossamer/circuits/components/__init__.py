"""Component circuits: heads and MLPs as nodes, and the edges between them with q, k and v apart."""
