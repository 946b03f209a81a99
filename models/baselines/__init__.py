"""Baselines that are trained with labels. With few labels, pretraining must beat them."""
