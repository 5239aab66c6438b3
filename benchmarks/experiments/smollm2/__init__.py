"""SmolLM2-135M, a pretrained model that nobody here trained: made sparse, its circuits read, its limits measured."""
