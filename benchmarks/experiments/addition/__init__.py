"""The main job over seeds, and which position pairs a base adder needs."""
