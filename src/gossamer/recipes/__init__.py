"""Folder in, folder out: what each verb of the command line runs."""
