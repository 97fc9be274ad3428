"""Flax NNX modules that networks are made of: attentions, norms, dense and other layers."""
