"""`train` and `resume`: carry out a recipe, epoch by epoch, so that any stop loses one at most."""

import contextlib
import dataclasses
import math
import pathlib
import time
from typing import Any

import keras

from tfp_vae import _support, callbacks, datasets, evaluation
from tfp_vae.recipes import Recipe
from tfp_vae.training import pictures, replay
from tfp_vae.training.contents import describe
from tfp_vae.training.folder import Run
from tfp_vae.training.locks import locked
from tfp_vae.training.logs import Logs
from tfp_vae.training.models import RunError
from tfp_vae.training.networks import build
from tfp_vae.training.parts import Parts, split
from tfp_vae.training.speed import SpeedBar
from tfp_vae.training.workers import Team
from tfp_vae.vae import VAE

_LIKELIHOOD_IMAGES, _LIKELIHOOD_SAMPLES = 500, 100
_LATENT_IMAGES = 1000


def train(
    recipe: Recipe,
    out: Any,
    *,
    data: datasets.ImageData | None = None,
    data_dir: Any = None,
    verbose: int = 1,
    tensorboard: bool = False,
    strategy: Any = None,
) -> Run:
    """Train a recipe into a new folder.

    Sets Keras' and NumPy's global seeds to that of the recipe. A process that is stopped, killed
    even, leaves a folder with which `resume` goes on.

    Args:
        recipe: of `recipes.get`, or your own.
        out: the folder; made if need be. It must hold no run.
        data: images; by default those that ``recipe.dataset`` names. A run on images given here
            can be resumed only with the same images.
        data_dir: as for `datasets.load`.
        verbose: 0 for silence, 1 for a progress bar and a line for each epoch.
        tensorboard: also write the history, the pictures of the epochs, the use of the latent
            dimensions and at the end the latent space (`callbacks.write_projector`) for
            TensorBoard, into ``logs`` in the folder.
        strategy: a `tf.distribute.MirroredStrategy` or `MultiWorkerMirroredStrategy`, whose
            replicas share each batch of the recipe: its size is that of the global batch, and a
            last, smaller one is left out. Every worker calls `train` with the same arguments and
            sees the same folder; only the chief writes to it.

    Returns:
        The finished `Run`.

    Raises:
        RecipeError: settings that make no model.
        DatasetError: no images.
        RunError: the folder holds a run already, or another process trains into it; a loss that
            is not finite; a batch that the replicas cannot share, or a worker that was lost.
        OSError: the folder cannot be written.
    """
    folder, team = pathlib.Path(out), Team(strategy)
    if team.chief:
        _refuse_second_run(folder)
    data = data or datasets.load(recipe.dataset, data_dir)
    with team.watched(folder, _remedy(folder)), contextlib.ExitStack() as held:
        # Before anything is written: what cannot be trained leaves no folder behind.
        vae, parts = _build(recipe, data, team), split(data, recipe)
        if team.chief:
            _make(folder)
            held.enter_context(locked(folder))
            _refuse_second_run(folder)  # another process may have been quicker
            Run.create(folder, describe(recipe, data, data_dir))
        team.wait()
        run = Run(folder)
        return _continue(run, recipe.epochs, vae, data, parts, verbose, tensorboard, team)


def _make(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: expected a folder that can be written, got {error}") from error


def _refuse_second_run(folder: pathlib.Path) -> None:
    if (folder / "run.json").exists():
        raise RunError(
            f"{folder}: holds a run already. Go on with it by train --resume {folder}, or give "
            "another folder."
        )
    own = [name for name in pictures.file_names() if (folder / name).exists()]
    if own:
        raise RunError(
            f"{folder}: expected a new folder, got one with {', '.join(own)}, which a run would "
            "replace."
        )


def resume(
    folder: Any,
    *,
    epochs: int | None = None,
    data: datasets.ImageData | None = None,
    data_dir: Any = None,
    verbose: int = 1,
    tensorboard: bool = False,
    strategy: Any = None,
) -> Run:
    """Go on with a run after any stop: it ends as if it had never been stopped.

    Args:
        folder: of the run.
        epochs: how many there shall be in all; by default those of the recipe. More may be asked
            of a finished run.
        data: the images, if they were given to `train`.
        data_dir: as for `datasets.load`.
        verbose: as in `train`.
        tensorboard: as in `train`; a run that has ``logs`` goes on with them in any case.
        strategy: as in `train`; it may have another number of workers than before, or be none.

    Returns:
        The finished `Run`.

    Raises:
        RunError: no run, one with missing or damaged files or other images, another process
            trains into it, or fewer epochs than were done; as `train` of workers.
        DatasetError: no images.
    """
    Run(folder)  # refuses a folder of something else before a lock is put into it
    team = Team(strategy)
    lock = locked(pathlib.Path(folder)) if team.chief else contextlib.nullcontext()
    with team.watched(folder, _remedy(folder)), lock:
        run = Run(folder)
        data = run.checked(data) if data is not None else run.load_data(data_dir)
        vae, parts = _build(run.recipe, data, team), split(data, run.recipe)
        wanted = run.recipe.epochs if epochs is None else epochs
        team.wait()  # where `train` does: after a restart some may find a run and some none yet
        return _continue(run, wanted, vae, data, parts, verbose, tensorboard, team)


def _build(recipe: Recipe, data: datasets.ImageData, team: Team) -> VAE:
    team.check_batch_size(recipe.batch_size)
    if data.image_shape[2] not in (1, 3):
        raise RunError(
            f"{data.name}: expected images of 1 or 3 channels, of which pictures can be made, got "
            f"{data.image_shape[2]}."
        )
    keras.utils.set_random_seed(recipe.seed)
    with team.scope():
        vae = build(recipe, data.image_shape, data.num_classes)
        vae.optimizer.build(
            vae.trainable_variables
        )  # its slots are part of the state from the start
    return vae


def _continue(
    run: Run,
    epochs: int,
    vae: VAE,
    data: datasets.ImageData,
    parts: Parts,
    verbose: int,
    tensorboard: bool,
    team: Team,
) -> Run:
    """From the state that the folder holds to the end of epoch number `epochs`."""
    state = run.load_state(vae)
    progress = Progress() if state is None else Progress(**state)
    if epochs < progress.epoch:
        raise RunError(
            f"epochs: expected at least the {progress.epoch} that are done, got {epochs}."
        )
    if progress.best_epoch < progress.epoch:
        run.check_best(progress.best_epoch)
    team.wait()  # all have read what the chief is about to change
    if not team.chief:
        verbose = 0
    say = print if verbose else _silent
    say(f"data: {data.name}: {data.source}", flush=True)
    keeper = Keeper(run, progress, parts, say, tensorboard, team)
    # From here on the folder is written to: all that could be refused was.
    if team.chief:
        if state is not None:
            keeper.publish(vae)  # its process may have been killed before it had
        run.tidy(progress.epoch)
    if team.chief and epochs != run.recipe.epochs:
        run.change_epochs(epochs)
        # Figures of fewer epochs beside a model of more would be taken for its own.
        (run.folder / "metrics.json").unlink(missing_ok=True)
    recipe = run.recipe
    say(f"validation: {_support.count(parts.validation):,} of the training images are held out")
    if progress.epoch < epochs:
        say(f"run: {recipe.name}, epochs {progress.epoch + 1} to {epochs} into {run.folder}")
        drop = team.replicas > 1
        own = [callbacks.StopAtNonFinite(), keeper.timer, *keeper.latent, keeper]
        try:
            vae.fit(
                team.shared(parts.training_batches(progress.epoch, drop)),
                validation_data=team.shared(parts.batches(parts.validation)),
                initial_epoch=progress.epoch,
                epochs=epochs,
                verbose=verbose,
                callbacks=[SpeedBar(recipe.batch_size), *own] if verbose else own,
            )
        except callbacks.NonFiniteError as error:
            # With several replicas a second look would take all of them.
            found = None if drop else replay.culprit(run, vae, parts, error)
            raise RunError(f"{found or error} {_kept(progress.epoch)}") from error
    else:
        say(f"run: {recipe.name}, all {epochs} epochs are done in {run.folder}")
    if team.chief:
        _finish(run, keeper, data, say)
    team.wait()
    return run if team.chief else Run(run.folder)  # as the chief has left it


def _kept(done: int) -> str:
    return (
        f"The run is kept as it was after epoch {done}; try a lower optimizer.learning_rate in a "
        "new folder."
    )


def _remedy(folder: Any) -> str:
    return (
        "Every finished epoch is kept: start all workers again, as many as you like, with train "
        f"--resume {folder}."
    )


def _silent(*_: Any, **__: Any) -> None:
    pass


# ---------------------------------------------------------------------- epochs


@dataclasses.dataclass
class Progress:
    """What of a run is not a variable of the model."""

    epoch: int = 0
    best_epoch: int = 0
    best_loss: float = math.inf
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    latent: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # see LatentDiagnostics


class Keeper(keras.callbacks.Callback):
    """After each epoch: the test ELBO, the state in one file, and all that is made from it."""

    def __init__(
        self,
        run: Run,
        progress: Progress,
        parts: Parts,
        say: Any,
        tensorboard: bool,
        team: Team,
    ) -> None:
        super().__init__()
        self.run, self.progress, self.parts, self.say = run, progress, parts, say
        self.chief = team.chief
        self.timer = callbacks.EpochTimer()
        self.frames = pictures.EpochPictures(
            run, parts.binarized(_support.take(parts.test, slice(16)))
        )
        self.test = team.shared(parts.batches(parts.test))
        logs = Logs(run)
        asked = self.chief and (tensorboard or logs.folder.is_dir())  # who has them goes on
        self.events = logs if asked else None
        self.latent: list[keras.callbacks.Callback] = []
        if _support.count(parts.validation) > 1:  # of one image there is no variance
            first = _support.take(parts.validation, slice(_LATENT_IMAGES))
            images = parts.binarized(first)
            watch = callbacks.LatentDiagnostics(
                images, seed=run.recipe.seed, log_dir=logs.folder if asked else None
            )
            watch.rows = progress.latent
            self.latent.append(watch)

    def publish(self, vae: VAE) -> None:
        """Write what others read of the epoch that the state holds.

        After the state: whatever a kill prevents, the next process makes up for from it.
        """
        run, progress = self.run, self.progress
        self.frames.write(vae, progress.epoch)
        if progress.epoch == 0:
            return
        run.save_model("last", vae, progress.epoch)
        if progress.best_epoch == progress.epoch:
            for name, part in (("encoder", vae.encoder), ("decoder", vae.decoder)):
                run.save_model(name, part, progress.epoch)
            run.save_model("model", vae, progress.epoch)
        run.write_table("history.csv", progress.history)
        if progress.latent:
            run.write_latent(progress.latent)

    def on_train_begin(self, logs: Any = None) -> None:
        if self.progress.epoch == 0 and self.chief:
            self.run.save_state(self.model, vars(self.progress))
            self.publish(self.model)
            if self.events:
                self.events.picture(0)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = dict(logs or {})
        seconds = self.timer.seconds[-1]
        number, progress = epoch + 1, self.progress
        for name, value in logs.items():
            if not math.isfinite(value):
                raise RunError(
                    f"epoch {number}: expected a finite {name}, got {value}."
                    f"{callbacks.finite.spoiled(self.model)} {_kept(progress.epoch)}"
                )
        # All workers take part, also in what they hear of it: only the writing is the chief's.
        tested = self.model.evaluate(self.test, return_dict=True, verbose=0)
        logs |= {f"test_{name}": value for name, value in tested.items() if name != "loss"}
        row = {"epoch": number, "seconds": seconds, **logs}
        for name, value in row.items():
            # A column that an older version did not keep begins with NaN.
            progress.history.setdefault(name, [math.nan] * progress.epoch).append(float(value))
        # The negative ELBO, unless the KL's weight is not 1: of an autoencoder the ELBO is best
        # before it has learnt anything.
        best = logs["val_loss"] < progress.best_loss
        if best:
            progress.best_epoch, progress.best_loss = number, float(logs["val_loss"])
        progress.epoch = number
        if not self.chief:
            return
        self.run.save_state(self.model, vars(progress))
        self.publish(self.model)
        if self.events:
            self.events.figures(row)
            self.events.picture(number)
        units = logs.get("active_units")
        used = f", {units} of {self.model.latent_dim} units active" if units is not None else ""
        self.say(
            f"epoch {number}/{self.run.recipe.epochs}: test ELBO {logs['test_elbo']:.2f} nats "
            f"(reconstruction {logs['test_reconstruction']:.2f}, KL {logs['test_kl']:.2f}), "
            f"validation {logs['val_elbo']:.2f}{' (best)' if best else ''}{used}, {seconds:.1f} s, "
            f"{_support.count(self.parts.train) * self.run.recipe.passes / seconds:,.0f} images/s",
            flush=True,
        )


# ---------------------------------------------------------------------- end


def _finish(run: Run, keeper: Keeper, data: datasets.ImageData, say: Any) -> None:
    """Pictures and figures of the best epoch."""
    vae, parts, progress = run.load_model(), keeper.parts, keeper.progress
    x_test = parts.binarized(parts.test)
    start = time.perf_counter()
    written = pictures.write_final(run, vae, data, x_test, progress.history, run.latent(), say)
    if keeper.events:
        keeper.events.latent_space(vae, data, x_test)
    drawing = keeper.frames.seconds + time.perf_counter() - start
    seed = run.recipe.seed
    images = _support.take(x_test, slice(_LIKELIHOOD_IMAGES))
    count = _support.count(images)
    say(f"likelihood of {count} test images, {_LIKELIHOOD_SAMPLES} importance samples each:")
    likelihood = evaluation.importance_sampling(
        vae, images, _LIKELIHOOD_SAMPLES, seed, verbose="auto" if say is print else 0
    )
    best = progress.best_epoch - 1
    tested = {
        name: values[best]
        for name, values in progress.history.items()
        if name[:5] == "test_" or name == "active_units"
    }
    trained = sum(progress.history["seconds"])
    metrics = {
        "recipe": run.recipe.name,
        "remark": run.recipe.remark,
        "dataset": data.name,
        "source": data.source,
        "binarization": run.recipe.binarization,
        "training_images": _support.count(parts.train),
        "validation_images": _support.count(parts.validation),
        "test_images": _support.count(parts.test),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "validation_elbo": progress.history["val_elbo"][best],
        **tested,
        "last_test_elbo": progress.history["test_elbo"][-1],
        "log_likelihood": likelihood.mean_log_likelihood.mean,
        "log_likelihood_standard_error": likelihood.mean_log_likelihood.standard_error,
        "log_likelihood_monte_carlo_error": likelihood.monte_carlo_error,
        "log_likelihood_images": count,
        "log_likelihood_importance_samples": _LIKELIHOOD_SAMPLES,
        "latent_dimensions": vae.latent_dim,
        "parameters": int(vae.count_params()),
        "encoder_parameters": int(vae.encoder.count_params()),
        "decoder_parameters": int(vae.decoder.count_params()),
        "seconds_of_training": trained,
        "seconds_for_each_epoch": trained / progress.epoch,
        "seconds_of_pictures_in_this_process": drawing,
    }
    run.write_metrics(metrics)
    say(
        f"{run.recipe.name} on {data.name}: test ELBO {metrics['test_elbo']:.2f} nats at the best "
        f"epoch, {progress.best_epoch} of {progress.epoch}; {trained:.0f} s of training\n"
        f"written to {run.folder.resolve()}: model.keras, last.keras, encoder.keras, "
        f"decoder.keras, history.csv, metrics.json, {', '.join(written)}"
    )
