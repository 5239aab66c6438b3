"""Gates on a model of transformers: find its parts, attach, prove, save, load, share."""
