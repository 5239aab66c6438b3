"""Open edges as data: trace, patch, prove, compare, export."""
