"""The embedded contrastive model: pictures and captions of the world of the prior, by renderings of its own."""
