"""The fused Adam takes the steps of the equations, and of Keras' own, wherever Keras takes them."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.models import SHAPE, small_vae
from tfp_vae import optimizers


def steps(optimizer, gradients, start):
    """The weights after one update for each gradient."""
    variable = keras.Variable(start)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient)])
    return variable.numpy()


def test_its_steps_are_those_of_the_equations(rng):
    start = rng.normal(size=(4, 3)).astype("float32")
    gradients = rng.normal(size=(7, 4, 3)).astype("float32")
    rates = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.03, 0.01])
    got = steps(optimizers.FusedAdam(rates, beta_1=0.8, beta_2=0.95), gradients, start)
    w, m, v = start.astype(float), 0.0, 0.0
    for t, g in enumerate(gradients.astype(float), 1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
        scale = (0.1 if t <= 3 else 0.03 if t <= 5 else 0.01) * np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
        w = w - scale * m / (np.sqrt(v) + 1e-7)
    np.testing.assert_allclose(got, w, rtol=1e-5, atol=1e-6)


OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"epsilon": 0.1}, id="epsilon"),
    pytest.param({"global_clipnorm": 0.5}, id="global_clipnorm"),
    pytest.param({"clipvalue": 0.1}, id="clipvalue"),
    pytest.param({"weight_decay": 0.1}, id="weight_decay"),
    pytest.param({"amsgrad": True}, id="amsgrad"),
    pytest.param({"use_ema": True, "ema_overwrite_frequency": 2}, id="ema"),
    pytest.param({"gradient_accumulation_steps": 2}, id="accumulation"),
    pytest.param({"loss_scale_factor": 8.0}, id="loss_scale"),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_its_steps_are_those_of_keras(options, rng):
    start = rng.normal(size=(5,)).astype("float32")
    gradients = rng.normal(size=(6, 5)).astype("float32")
    ours, keras_own = (
        steps(make(0.05, **options), gradients, start)
        for make in (optimizers.FusedAdam, keras.optimizers.Adam)
    )
    assert np.abs(ours - start).max() > 0.02
    np.testing.assert_allclose(ours, keras_own, rtol=1e-5, atol=1e-6)


def test_a_sparse_gradient_is_kept_sparse():
    table = keras.Variable(np.ones((5, 2), "float32"))
    gradient = tf.IndexedSlices(tf.ones([2, 2]), tf.constant([1, 3]), tf.constant([5, 2]))
    optimizer = optimizers.FusedAdam(0.1)
    optimizer.build([table])
    optimizer.apply([gradient])
    np.testing.assert_allclose(table.numpy()[:, 0], [1, 0.9, 1, 0.9, 1], atol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_it_trains_a_vae_as_keras_own_does(jit_compile, rng):
    x = rng.integers(0, 2, (40, *SHAPE)).astype("float32")
    weights = []
    for make in (optimizers.FusedAdam, keras.optimizers.Adam):
        keras.utils.set_random_seed(1)  # the first weights, and the seeds of the draws
        vae = small_vae()
        vae.compile(make(1e-2), jit_compile=jit_compile)
        vae.fit(x, batch_size=10, epochs=2, verbose=0, shuffle=False)
        weights.append([w.numpy() for w in vae.trainable_variables])
    for ours, keras_own in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=1e-3, atol=1e-4)


def test_a_loaded_model_goes_on_with_its_moments(tmp_path, rng):
    x = rng.integers(0, 2, (20, *SHAPE)).astype("float32")
    vae = small_vae()
    vae.compile(optimizers.FusedAdam(1e-2))
    vae.fit(x, batch_size=10, verbose=0)
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is optimizers.FusedAdam
    assert int(loaded.optimizer.iterations) == 2
    gradients = [tf.ones_like(v) for v in vae.trainable_variables]
    for model in (vae, loaded):
        model.optimizer.apply(gradients)
    for a, b in zip(vae.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from tfp_vae import optimizers
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = []
for make in (optimizers.FusedAdam, keras.optimizers.Adam):
    with strategy.scope():
        layer = keras.layers.Dense(3, kernel_initializer="ones")
        layer.build((None, 4))
        optimizer = make(0.1)
        optimizer.build(layer.trainable_variables)

    @tf.function
    def step():
        def of_replica():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            scale = tf.cast(replica + 1, tf.float32)
            optimizer.apply_gradients([(scale * tf.ones_like(v.value), v)
                                       for v in layer.trainable_variables])
        strategy.run(of_replica)

    for _ in range(3):
        step()
    kernel = layer.kernel.value
    found += [v.numpy() for v in kernel.values]
for value in found:
    np.testing.assert_allclose(value, found[-1], rtol=1e-5)
assert abs(found[0] - 1).max() > 0.1
"""


def test_every_replica_of_a_strategy_takes_the_step_of_keras_own():
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
