"""Whole experiments, each a package: `run` makes the records, `report` a page of them."""
