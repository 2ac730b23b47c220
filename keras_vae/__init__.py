"""Variational autoencoders in Keras."""
