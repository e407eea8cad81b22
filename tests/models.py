"""Models that several test files share: a small one, and one known in closed form."""

import keras
import numpy as np
import scipy.stats
import tensorflow_probability as tfp

from tfp_vae import VAE, layers, networks, priors

SHAPE = (6, 5, 1)
CLASSES = 3


def small_vae(prior=None, *, latent_dim=2, seed=7, likelihood="bernoulli", **options):
    prior = prior or priors.StandardNormal(latent_dim)
    encoder = networks.dense_encoder(SHAPE, latent_dim, units=(8,), prior=prior, **options)
    decoder = networks.dense_decoder(SHAPE, latent_dim, units=(8,), likelihood=likelihood)
    return VAE(encoder, decoder, prior, seed=seed)


def conditional(latent_dim=2, *, seed=7, **options):
    prior = options.pop("prior", None) or priors.StandardNormal(latent_dim)
    encoder = networks.conditional_encoder(
        networks.dense_encoder, SHAPE, latent_dim, CLASSES,
        prior=prior, units=(8,), **options,
    )  # fmt: skip
    decoder = networks.conditional_decoder(
        networks.dense_decoder, SHAPE, latent_dim, CLASSES, units=(8,)
    )
    return VAE(encoder, decoder, prior, seed=seed)


class FactorAnalysis:
    """``z ~ N(0, I)``, ``x = W z + mu + sigma e``: everything is known in closed form."""

    def __init__(self, rng, dim=5, latent_dim=2, sigma=0.6):
        self.W, self.mu = rng.normal(size=(dim, latent_dim)), rng.normal(size=dim)
        self.sigma, self.dim, self.latent_dim = sigma, dim, latent_dim
        precision = np.eye(latent_dim) + self.W.T @ self.W / sigma**2
        self.posterior_cov = np.linalg.inv(precision)
        self.gain = self.posterior_cov @ self.W.T / sigma**2
        self.cov = self.W @ self.W.T + sigma**2 * np.eye(dim)

    def sample(self, rng, n):
        z = rng.normal(size=(n, self.latent_dim))
        noise = self.sigma * rng.normal(size=(n, self.dim))
        return (z @ self.W.T + self.mu + noise).astype("float32")

    def log_likelihood(self, x):
        return scipy.stats.multivariate_normal.logpdf(x, self.mu, self.cov)

    def vae(self, posterior_scale=1.0, use_exact_kl=True):
        """The same model; its posterior is exact where `posterior_scale` is 1."""
        d, prior = self.latent_dim, priors.StandardNormal(self.latent_dim)
        head = layers.MultivariateNormalTriL(
            d, activity_regularizer=layers.KLDivergenceRegularizer(prior, use_exact_kl)
        )
        encoder = keras.Sequential(
            [keras.Input((self.dim,)), keras.layers.Dense(head.params_size(d)), head]
        )
        decoder = keras.Sequential(
            [
                keras.Input((d,)),
                keras.layers.Dense(2 * self.dim),
                layers.IndependentNormal(self.dim),
            ]
        )
        scale_tril = posterior_scale * np.linalg.cholesky(self.posterior_cov)
        triangle = np.array(scale_tril)
        np.fill_diagonal(triangle, inverse_softplus(np.diag(scale_tril) - 1e-5))
        fixed = np.asarray(tfp.math.fill_triangular_inverse(triangle))
        kernel = np.zeros((self.dim, head.params_size(d)))
        kernel[:, :d] = self.gain.T
        encoder.layers[0].set_weights([kernel, np.concatenate([-self.gain @ self.mu, fixed])])
        kernel = np.concatenate([self.W.T, np.zeros((d, self.dim))], axis=1)
        raw = np.full(self.dim, inverse_softplus(self.sigma))
        decoder.layers[0].set_weights([kernel, np.concatenate([self.mu, raw])])
        return VAE(encoder, decoder, prior, seed=0)

    def elbo(self, x, posterior_scale):
        """``log p(x) - KL(q || p(z|x))`` for a posterior of the right mean, scaled covariance."""
        s2, d = posterior_scale**2, self.latent_dim
        return self.log_likelihood(x) - 0.5 * d * (s2 - 1 - np.log(s2))


def inverse_softplus(y):
    return np.log(np.expm1(y))
