"""The 3D half: fields, rays, volume rendering. It does not depend on diffusion models."""
