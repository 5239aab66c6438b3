"""What people look at: figures, pages, reports, films, the local server."""
