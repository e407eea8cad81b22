"""Several workers on this machine: how they are started, and what one of them does.

``python -m tests.cluster FILE multiworker`` is one worker, whose ``TF_CONFIG`` says which; it
writes its figures to FILE as JSON. With ``mirrored`` it is two replicas in one process.
"""

import contextlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def free_port():
    """One that no connection takes meanwhile: systems give those numbers from 32,768 on."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def environments(count):
    """The environment of each worker of a cluster on free ports of 127.0.0.1."""
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    workers = [f"127.0.0.1:{port}" for port in ports]
    own = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    for index in range(count):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        yield {**os.environ, **own, "TF_CONFIG": json.dumps(task)}


class Workers:
    """Processes of one command line, as a context: none of them outlives it.

    Args:
        commands: the arguments of Python, for each worker.
        folder: where their standard output and error are kept.
    """

    def __init__(self, commands, folder):
        self.commands, self.folder = commands, pathlib.Path(folder)
        self.processes = []

    def __enter__(self):
        for i, environment in enumerate(environments(len(self.commands))):
            with (
                (self.folder / f"{i}.out").open("w") as out,
                (self.folder / f"{i}.err").open("w") as err,
            ):
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *map(str, self.commands[i])],
                        stdout=out,
                        stderr=err,
                        env=environment,
                    )
                )
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def said(self, index, stream="err"):
        return (self.folder / f"{index}.{stream}").read_text()

    def wait(self, timeout=300):
        """Their exit codes; too long a wait is an error that shows what they said."""
        end = time.monotonic() + timeout
        try:
            return [p.wait(max(0.1, end - time.monotonic())) for p in self.processes]
        except subprocess.TimeoutExpired:
            said = "\n".join(self.said(i)[-2000:] for i in range(len(self.processes)))
            raise AssertionError(f"workers were not done after {timeout} s:\n{said}") from None


# ---------------------------------------------------------------------- what a worker does


def figures(strategy, names=("elbo", "free bits", "iwae with a flow", "conditional")):
    """Logs and weights of small trainings, as plain data; the same code for any strategy."""
    import keras
    import numpy as np

    from tests.models import SHAPE, small_vae
    from tfp_vae import VAE, datasets, networks, objectives, priors

    def conditional():
        prior = priors.StandardNormal(2)
        sizes = {"latent_dim": 2, "num_classes": 3, "units": (8,)}
        encoder = networks.conditional_encoder(networks.dense_encoder, SHAPE, prior=prior, **sizes)
        decoder = networks.conditional_decoder(networks.dense_decoder, SHAPE, **sizes)
        return VAE(encoder, decoder, prior, seed=7)

    def with_flow():
        return small_vae(posterior={"name": "iaf", "num_flows": 1}, use_exact_kl=False)

    cases = {
        # The last batch of validation is of one image: one of two workers has none.
        "elbo": (small_vae, objectives.ELBO(), 61),
        # Of the two halves of a batch one alone may use a dimension.
        "free bits": (small_vae, objectives.ELBO(free_bits=0.1), 80),
        "iwae with a flow": (with_flow, objectives.IWAE(3), 80),
        "conditional": (conditional, objectives.ELBO(), 80),
    }
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (80, *SHAPE)).astype("float32")
    y = rng.integers(0, 3, 80)
    found = {}
    for name in names:
        make, objective, count = cases[name]
        keras.utils.set_random_seed(0)
        with strategy.scope():
            vae = make()
            # Unlike Adam it would not hide a gradient of another scale.
            vae.compile(keras.optimizers.SGD(0.01, momentum=0.9), objective)
        labels = (y, y[:count]) if name == "conditional" else (None, None)
        train = datasets.pipeline(x, labels[0], batch_size=20, drop_remainder=True, seed=3)
        test = datasets.pipeline(x[:count], labels[1], batch_size=20, training=False)
        fitted = vae.fit(train, validation_data=test, epochs=2, verbose=0)
        found[name] = {
            "history": fitted.history,
            "weights": [weight.tolist() for weight in vae.get_weights()],
        }
        if name == "elbo":
            found["evaluation"] = evaluated(strategy, vae, x)
    return found


def evaluated(strategy, vae, x):
    """Of seven pieces: four for one of two workers, three for the other; of one piece; of many.

    Of those the first are of six images, and of 30 samples, whose largest weights have a tail; the
    others of `VAE.log_likelihood`.
    """
    from unittest import mock

    from tfp_vae import evaluation
    from tfp_vae.vae import chunks

    with (
        strategy.scope(),
        mock.patch.object(chunks, "NUMBERS_AT_ONCE", 12 * 30 * 2),
        mock.patch.object(chunks, "pieces", wraps=chunks.pieces) as pieces,
    ):
        many = evaluation.importance_sampling(vae, x, 7, seed=5, verbose=0)
        few = evaluation.elbo_terms(vae, x[:3], 2, seed=5, verbose=0)
        tail = evaluation.importance_sampling(vae, x[:30], 30, seed=5, verbose=0)
        values = vae.log_likelihood(x[:30], 7, seed=5, verbose=0)
    share = [len(call.args[0]) for call in pieces.call_args_list]
    return {
        "many": many.to_dict(),
        "few": few.to_dict(),
        "tail": tail.to_dict(),
        "values": values.numpy().tolist(),
        "share": share,
    }


def streamed(strategy):
    """Each worker reads its own part of records; alone, batches of both parts' halves."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tests.models import SHAPE, small_vae
    from tfp_vae import datasets

    x = np.random.default_rng(1).integers(0, 256, (80, *SHAPE), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        datasets.write_records(folder, [x], images_per_file=20)

        def part(index):
            options = {"binarization": "threshold", "training": False, "shard": (index, 2)}
            return datasets.stream(folder, batch_size=20, **options)

        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            data = part(strategy.cluster_resolver.task_id)
        else:
            both = np.stack([np.concatenate(list(part(index))) for index in (0, 1)])
            halves = both.reshape(2, 4, 10, *SHAPE)  # of four batches of 20
            data = tf.data.Dataset.from_tensor_slices(np.concatenate(halves, 1)).prefetch(1)
        keras.utils.set_random_seed(0)
        with strategy.scope():
            vae = small_vae()
            vae.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        history = vae.fit(data.repeat(), steps_per_epoch=4, epochs=2, verbose=0).history
    return {"history": history, "weights": [weight.tolist() for weight in vae.get_weights()]}


def main():
    import tensorflow as tf

    path, kind = sys.argv[1:]
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        found = figures(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), ["elbo", "free bits"])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        found = figures(strategy) | {"streamed": streamed(strategy)}
    pathlib.Path(path).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
