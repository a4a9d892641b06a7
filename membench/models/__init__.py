"""The network under test, and what is done with it: evaluations, sampling, derivatives,
training.

For other packages: denoiser, conditioning, sampling, derivative, trace, internals
(detectors); pixel, latent, checkpoints, stable_diffusion_folder, training, loading (tasks); memo,
batch_size (runs); given (api).
"""
