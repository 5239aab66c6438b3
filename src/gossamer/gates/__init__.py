"""What a gate is and computes: the hard gate, its noise, gated attention in three implementations."""
