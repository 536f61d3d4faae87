"""The 3D half: fields, rays, volume rendering. It knows nothing of diffusion models."""
