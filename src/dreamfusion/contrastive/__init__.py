"""Contrastive image-text models: text and pictures as unit vectors of one space, with gradients to the pictures."""
