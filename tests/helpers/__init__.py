"""What tests share: models, cases, oracles, and programs that are run beside them."""
