"""Flax NNX modules: attentions, layers, the Visual Attention Network, named models."""
