"""What a trained `VAE` is worth, as a page to read and a file for programs."""

from tfp_vae.reports.files import write_report

__all__ = ["write_report"]
