"""The same network and objective, trained by three programs that a person could have written.

All of them: the CVAE of TensorFlow's tutorial (two strided convolutions, two strided transposed
ones, 2 latents), the single-sample Monte Carlo ELBO, Adam.
"""

import math
import time
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfp_vae import VAE, networks, priors

IMAGE_SHAPE, LATENT_DIM = (28, 28, 1), 2


def plain_networks() -> tuple[keras.Sequential, keras.Sequential]:
    """Encoder and decoder that return tensors: mean with log-variance, and logits."""
    relu, layers = "relu", keras.layers
    encoder = keras.Sequential(
        [
            keras.Input(IMAGE_SHAPE),
            layers.Conv2D(32, 3, 2, activation=relu),
            layers.Conv2D(64, 3, 2, activation=relu),
            layers.Flatten(),
            layers.Dense(2 * LATENT_DIM),
        ]
    )
    decoder = keras.Sequential(
        [
            keras.Input((LATENT_DIM,)),
            layers.Dense(7 * 7 * 32, activation=relu),
            layers.Reshape((7, 7, 32)),
            layers.Conv2DTranspose(64, 3, 2, padding="same", activation=relu),
            layers.Conv2DTranspose(32, 3, 2, padding="same", activation=relu),
            layers.Conv2DTranspose(1, 3, 1, padding="same"),
        ]
    )
    return encoder, decoder


def log_normal(z: tf.Tensor, mean: tf.Tensor | float, log_variance: tf.Tensor | float) -> tf.Tensor:
    """``log N(z; mean, exp(log_variance))``, summed over the latent dimensions."""
    squares = (z - mean) ** 2 * tf.exp(-log_variance)
    return tf.reduce_sum(-0.5 * (squares + log_variance + math.log(2 * math.pi)), axis=1)


def plain_loss(encoder: keras.Model, decoder: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """The negative single-sample ELBO as the tutorial writes it, mean over the batch."""
    mean, log_variance = tf.split(encoder(x), 2, axis=1)
    z = mean + tf.random.normal(tf.shape(mean)) * tf.exp(0.5 * log_variance)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=decoder(z))
    log_px_z = -tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    return -tf.reduce_mean(log_px_z + log_normal(z, 0.0, 0.0) - log_normal(z, mean, log_variance))


class PlainLoop:
    """A `GradientTape` in a `tf.function`, called for every batch of a `tf.data.Dataset`."""

    def __init__(self, x: np.ndarray, batch_size: int, learning_rate: float = 1e-4) -> None:
        self.encoder, self.decoder = plain_networks()
        optimizer = keras.optimizers.Adam(learning_rate)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        optimizer.build(variables)
        self.data = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).batch(batch_size)

        @tf.function
        def step(batch: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                loss = plain_loss(self.encoder, self.decoder, batch)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        self.step = step
        self.loss = tf.function(lambda batch: plain_loss(self.encoder, self.decoder, batch))

    def epoch(self) -> None:
        for batch in self.data:
            self.step(batch)

    def elbo(self, x: np.ndarray) -> float:
        """The mean single-sample ELBO of `x`, in nats."""
        pieces = np.array_split(x, len(x) // 500)
        return -float(np.mean([self.loss(piece) for piece in pieces]))


class StockKeras(keras.Model):
    """The network in Keras 3 as it comes: `compute_loss`, `fit`, and XLA by ``"auto"``."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = plain_networks()

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ) -> tf.Tensor:
        return plain_loss(self.encoder, self.decoder, x)


def stock_keras(x: np.ndarray, batch_size: int) -> Callable[[], None]:
    """One epoch of stock Keras 3, compiled as `compile` does when it is told nothing."""
    model = StockKeras()
    model.compile(keras.optimizers.Adam(1e-4))
    return lambda: model.fit(x, batch_size=batch_size, verbose=0)


def cvae(learning_rate: float = 1e-4) -> VAE:
    """The same model in `tfp_vae`, with the same Monte Carlo objective."""
    prior = priors.StandardNormal(LATENT_DIM)
    encoder = networks.conv_encoder(IMAGE_SHAPE, LATENT_DIM, prior=prior, use_exact_kl=False)
    vae = VAE(encoder, networks.conv_decoder(IMAGE_SHAPE, LATENT_DIM), prior)
    vae.compile(keras.optimizers.Adam(learning_rate))
    return vae


def seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
