"""The same networks and objective, trained by programs that a person could have written.

Two networks: the CVAE of TensorFlow's tutorial (two strided convolutions, two strided transposed
ones and one more; 2 latents) and a dense one (200-200 tanh on both sides, 50 latents). All: the
single-sample Monte Carlo ELBO of binary pixels, Adam at 1e-4.
"""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfp_vae import VAE, networks, optimizers, priors

IMAGE_SHAPE = (28, 28, 1)
PIXELS = math.prod(IMAGE_SHAPE)
NETWORKS = {"CVAE": 2, "dense": 50}  # latent dimensions
RATE = 1e-4


def layers_of(network: str, api: Any) -> tuple[list[Any], list[Any]]:
    """Layers of Keras 3, or of legacy Keras, up to the posterior's parameters and to the logits."""
    layers, latent = api.layers, NETWORKS[network]
    if network == "dense":
        encoder = [layers.Flatten(), *(layers.Dense(200, activation="tanh") for _ in range(2))]
        decoder = [layers.Dense(200, activation="tanh") for _ in range(2)]
        decoder += [layers.Dense(PIXELS), layers.Reshape(IMAGE_SHAPE)]
    else:
        relu = "relu"
        encoder = [
            layers.Conv2D(32, 3, 2, activation=relu),
            layers.Conv2D(64, 3, 2, activation=relu),
            layers.Flatten(),
        ]
        decoder = [
            layers.Dense(7 * 7 * 32, activation=relu),
            layers.Reshape((7, 7, 32)),
            layers.Conv2DTranspose(64, 3, 2, padding="same", activation=relu),
            layers.Conv2DTranspose(32, 3, 2, padding="same", activation=relu),
            layers.Conv2DTranspose(1, 3, 1, padding="same"),
        ]
    return [*encoder, layers.Dense(2 * latent)], decoder


def plain_networks(network: str) -> tuple[keras.Sequential, keras.Sequential]:
    """Encoder and decoder that return tensors: mean with log-variance, and logits."""
    encoder, decoder = layers_of(network, keras)
    return (
        keras.Sequential([keras.Input(IMAGE_SHAPE), *encoder]),
        keras.Sequential([keras.Input((NETWORKS[network],)), *decoder]),
    )


def log_normal(z: tf.Tensor, mean: tf.Tensor | float, log_variance: tf.Tensor | float) -> tf.Tensor:
    """``log N(z; mean, exp(log_variance))``, summed over the latent dimensions."""
    squares = (z - mean) ** 2 * tf.exp(-log_variance)
    return tf.reduce_sum(-0.5 * (squares + log_variance + math.log(2 * math.pi)), axis=1)


def plain_log_weights(parameters: tf.Tensor, decoder: keras.Model, x: tf.Tensor) -> tf.Tensor:
    """``log p(x|z) + log p(z) - log q(z|x)`` at one draw for each image, of encoded images."""
    mean, log_variance = tf.split(parameters, 2, axis=1)
    z = mean + tf.random.normal(tf.shape(mean)) * tf.exp(0.5 * log_variance)
    cross_entropy = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=decoder(z))
    log_px_z = -tf.reduce_sum(cross_entropy, axis=[1, 2, 3])
    return log_px_z + log_normal(z, 0.0, 0.0) - log_normal(z, mean, log_variance)


# ---------------------------------------------------------------------- training


def epoch_of(fit: Callable[..., Any], api: Any = keras) -> Callable[[], float]:
    """The seconds of one epoch of Keras' `fit`, without what it does once, however many follow.

    That is the look through the images and their copy into TensorFlow's memory; the loops that are
    compared with it have theirs before they begin.
    """

    def seconds_of_epoch() -> float:
        times: list[float] = []

        def note(*_: Any) -> None:
            times.append(time.perf_counter())

        fit(callbacks=[api.callbacks.LambdaCallback(on_epoch_begin=note, on_epoch_end=note)])
        return times[1] - times[0]

    return seconds_of_epoch


class PlainLoop:
    """A `GradientTape` in a `tf.function`, called for every batch of a `tf.data.Dataset`."""

    def __init__(self, x: np.ndarray, batch_size: int, network: str = "CVAE") -> None:
        self.encoder, self.decoder = plain_networks(network)
        optimizer = keras.optimizers.Adam(RATE)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        optimizer.build(variables)
        self.data = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x)).batch(batch_size)

        @tf.function
        def step(batch: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                weights = plain_log_weights(self.encoder(batch), self.decoder, batch)
                loss = -tf.reduce_mean(weights)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

        self.step = step
        self.log_weights = tf.function(
            lambda batch: plain_log_weights(self.encoder(batch), self.decoder, batch)
        )

        @tf.function
        def likelihood(batch: tf.Tensor, num_samples: tf.Tensor) -> tf.Tensor:
            parameters = self.encoder(batch)
            total = tf.fill([tf.shape(batch)[0]], -math.inf)
            for _ in tf.range(num_samples):
                weights = plain_log_weights(parameters, self.decoder, batch)
                total = tf.reduce_logsumexp([total, weights], 0)
            return total - tf.math.log(tf.cast(num_samples, tf.float32))

        self.likelihood = likelihood

    def epoch(self) -> None:
        for batch in self.data:
            self.step(batch)

    def elbo(self, x: np.ndarray) -> float:
        """The mean single-sample ELBO of `x`, in nats."""
        pieces = np.array_split(x, len(x) // 500)
        return float(np.mean([np.mean(self.log_weights(piece)) for piece in pieces]))


class StockKeras(keras.Model):
    """The network in Keras 3 as it comes: `compute_loss`, `fit`, and XLA by ``"auto"``."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.encoder, self.decoder = plain_networks(network)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ) -> tf.Tensor:
        return -tf.reduce_mean(plain_log_weights(self.encoder(x), self.decoder, x))


def plain_loop(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of an epoch of `PlainLoop`."""
    return functools.partial(seconds, PlainLoop(x, batch_size, network).epoch)


def stock_keras(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of an epoch of stock Keras 3, compiled as `compile` does when told nothing."""
    model = StockKeras(network)
    model.compile(keras.optimizers.Adam(RATE))
    return epoch_of(functools.partial(model.fit, x, batch_size=batch_size, verbose=0))


def legacy_layers(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of an epoch of TFP's own layers on legacy Keras, wired as in TFP's tutorial."""
    import tensorflow_probability as tfp
    import tf_keras

    latent = NETWORKS[network]
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros(latent), tf.ones(latent))
    encoder, decoder = layers_of(network, tf_keras)

    def posterior(parameters: tf.Tensor) -> tfp.distributions.Distribution:
        mean, log_variance = tf.split(parameters, 2, axis=-1)
        return tfp.distributions.MultivariateNormalDiag(mean, tf.exp(0.5 * log_variance))

    head = tfp.layers.DistributionLambda(
        posterior,
        activity_regularizer=tfp.layers.KLDivergenceRegularizer(prior, use_exact_kl=False),
    )
    encoder = tf_keras.Sequential([tf_keras.layers.InputLayer(IMAGE_SHAPE), *encoder, head])
    pixels = tfp.layers.IndependentBernoulli(IMAGE_SHAPE)
    decoder = tf_keras.Sequential(
        [
            tf_keras.layers.InputLayer((latent,)),
            *decoder,
            tf_keras.layers.Flatten(),
            pixels,
        ]
    )
    model = tf_keras.Model(encoder.inputs, decoder(encoder.outputs[0]))
    model.compile(tf_keras.optimizers.Adam(RATE), loss=lambda x, p: -p.log_prob(x))
    return epoch_of(functools.partial(model.fit, x, x, batch_size=batch_size, verbose=0), tf_keras)


def torch_networks(network: str) -> tuple[Any, Any]:
    """The same networks in PyTorch, convolutions in its fastest layout on a processor."""
    import torch
    from torch import nn

    latent = NETWORKS[network]
    if network == "dense":
        encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
            nn.Linear(200, 2 * latent),
        )  # fmt: skip
        decoder = nn.Sequential(
            nn.Linear(latent, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
            nn.Linear(200, PIXELS), nn.Unflatten(1, (1, 28, 28)),
        )  # fmt: skip
        return encoder, decoder
    encoder = nn.Sequential(
        nn.Conv2d(1, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 64, 3, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 6 * 6, 2 * latent),
    )  # fmt: skip
    up = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}
    decoder = nn.Sequential(
        nn.Linear(latent, 7 * 7 * 32), nn.ReLU(), nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 64, **up), nn.ReLU(), nn.ConvTranspose2d(64, 32, **up), nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 3, 1, 1),
    )  # fmt: skip
    layout = torch.channels_last
    return encoder.to(memory_format=layout), decoder.to(memory_format=layout)


def torch_log_weights(encoder: Any, decoder: Any, x: Any) -> Any:
    """As `plain_log_weights`, of images in PyTorch's order of dimensions."""
    import torch
    from torch.nn import functional

    mean, log_variance = encoder(x).chunk(2, 1)
    noise = torch.randn_like(mean)
    z = mean + noise * torch.exp(0.5 * log_variance)
    entropy = functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="none")
    difference = 0.5 * (noise**2 + log_variance - z**2).sum(1)
    return difference - entropy.sum((1, 2, 3))


def torch_eager(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of an epoch of an eager PyTorch loop on images that are one tensor in memory."""
    import torch

    encoder, decoder = torch_networks(network)
    # In one kernel for each variable, as ours.
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, RATE, fused=True)
    images = torch_images(x)

    def epoch() -> None:
        order = torch.randperm(len(images))
        for start in range(0, len(images), batch_size):
            optimizer.zero_grad(set_to_none=True)
            batch = images[order[start : start + batch_size]]
            loss = -torch_log_weights(encoder, decoder, batch).mean()
            loss.backward()
            optimizer.step()

    return functools.partial(seconds, epoch)


def torch_images(x: np.ndarray) -> Any:
    import torch

    images = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1)))
    return images.contiguous(memory_format=torch.channels_last)


def ours(network: str = "CVAE") -> VAE:
    """The same model in `tfp_vae`, with the same Monte Carlo objective."""
    latent = NETWORKS[network]
    prior = priors.StandardNormal(latent)
    options: dict[str, Any] = {"prior": prior, "use_exact_kl": False}
    if network == "dense":
        dense = {"units": (200, 200), "activation": "tanh"}
        encoder = networks.dense_encoder(IMAGE_SHAPE, latent, **dense, **options)
        decoder = networks.dense_decoder(IMAGE_SHAPE, latent, **dense)
    else:
        encoder = networks.conv_encoder(IMAGE_SHAPE, latent, **options)
        decoder = networks.conv_decoder(IMAGE_SHAPE, latent)
    vae = VAE(encoder, decoder, prior)
    vae.compile(optimizers.FusedAdam(RATE))
    return vae


# ---------------------------------------------------------------------- likelihood


def plain_likelihood(loop: PlainLoop, x: np.ndarray, num_samples: int) -> np.ndarray:
    """Importance weighted: all images encoded once, then draw after draw in a compiled loop."""
    return loop.likelihood(x, tf.constant(num_samples)).numpy()


def image_by_image(encoder: Any, decoder: Any, x: np.ndarray, num_samples: int) -> np.ndarray:
    """The way of pythae's `get_nll`: image by image, encoded again for each of its draws."""
    import torch

    with torch.no_grad():
        found = [
            torch.logsumexp(
                torch_log_weights(encoder, decoder, image[None].repeat(num_samples, 1, 1, 1)), 0
            )
            for image in torch_images(x)
        ]
    return np.asarray(found) - math.log(num_samples)


# ---------------------------------------------------------------------- work


def step_alone(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of an epoch of our training step in one graph, always on the same batch.

    What `fit` adds to it is Keras' loop over the batches, and the batches.
    """
    vae = ours(network)
    vae.optimizer.build(vae.trainable_variables)
    batch, steps = tf.constant(x[:batch_size]), -(-len(x) // batch_size)

    @tf.function
    def epoch() -> tf.Tensor:
        def step(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return i + 1, vae.train_step(batch)["loss"]

        start = [tf.constant(0), tf.constant(0.0)]
        return tf.while_loop(lambda i, _: i < steps, step, start, parallel_iterations=1)[1]

    return functools.partial(seconds, lambda: epoch().numpy())


def kernels_alone(x: np.ndarray, batch_size: int, network: str = "CVAE") -> Callable[[], float]:
    """Seconds of the matrix products and convolutions of an epoch, forward and backward, alone.

    No biases, activations, draws, losses or updates, and always the same batch: what a step on
    TensorFlow's kernels cannot do without.
    """
    vae = ours(network)
    chains = [
        keras.Sequential([keras.Input(part.input_shape[1:]), *map(_bare, part.layers[:-1])])
        for part in (vae.encoder, vae.decoder)
    ]
    latents = tf.random.normal([batch_size, NETWORKS[network]])
    inputs = [tf.constant(x[:batch_size]), latents]
    slopes = [tf.random.normal(chain(y).shape) for chain, y in zip(chains, inputs, strict=True)]

    @tf.function
    def step() -> list[Any]:
        found = []
        for chain, y, slope in zip(chains, inputs, slopes, strict=True):
            with tf.GradientTape() as tape:
                tape.watch(latents)
                outputs = chain(y)
            weights = [weight.value for weight in chain.trainable_weights]
            sources = [latents, *weights] if y is latents else weights
            found.append(tape.gradient(outputs, sources, slope))
        return found

    def epoch() -> None:
        for _ in range(-(-len(x) // batch_size)):
            step()

    return functools.partial(seconds, epoch)


def _bare(layer: keras.layers.Layer) -> keras.layers.Layer:
    config = layer.get_config()
    if "use_bias" in config:
        config |= {"use_bias": False, "activation": None}
    return type(layer).from_config(config)


def multiply_adds(network: str) -> int:
    """Of a training step of one image: those of matrix products and convolutions.

    Once forward and twice backward, but for the gradient of the images, which none takes.
    """
    encoder, decoder = map(_of_layers, plain_networks(network))
    return 3 * sum(encoder + decoder) - next(filter(None, encoder))


def multiply_adds_of_a_draw(network: str) -> int:
    """Of the decoder for one draw, forward."""
    return sum(_of_layers(plain_networks(network)[1]))


def _of_layers(part: keras.Model) -> list[int]:
    found = []
    for layer in part.layers:
        before, after = layer.input.shape[1:], layer.output.shape[1:]
        if isinstance(layer, keras.layers.Conv2DTranspose):
            found.append(math.prod(before) * after[-1] * math.prod(layer.kernel_size))
        elif isinstance(layer, keras.layers.Conv2D):
            found.append(math.prod(after) * before[-1] * math.prod(layer.kernel_size))
        elif isinstance(layer, keras.layers.Dense):
            found.append(math.prod(before) * math.prod(after))
    return found


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
