"""Arrays and `tf.data`: named sets, your own files, binarization, seeded pipelines.

`load` finds MNIST, Fashion-MNIST, CIFAR-10, scikit-learn's digits or your own files, `binarize`
turns grey pixels into zeros and ones, and `pipeline` makes the batches that `VAE.fit` takes.
Nothing is ever unpickled, and a file that cannot be trusted is named in a `DatasetError`.
"""

from tfp_vae.datasets.common import AbsentError, DatasetError, ImageData
from tfp_vae.datasets.loading import available, load, locate
from tfp_vae.datasets.pipelines import binarize, pipeline
from tfp_vae.datasets.records import write_records
from tfp_vae.datasets.streams import stream

__all__ = [
    "AbsentError",
    "DatasetError",
    "ImageData",
    "available",
    "binarize",
    "load",
    "locate",
    "pipeline",
    "stream",
    "write_records",
]
