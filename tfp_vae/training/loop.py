"""`train` and `resume`: carry out a recipe, epoch by epoch, so that any stop loses one at most."""

import contextlib
import math
import pathlib
import shlex
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tfp_vae import _support, callbacks, datasets
from tfp_vae.recipes import Recipe
from tfp_vae.training import pictures, replay
from tfp_vae.training.contents import describe
from tfp_vae.training.ending import finish
from tfp_vae.training.folder import Run
from tfp_vae.training.keeper import Keeper, Progress, kept
from tfp_vae.training.locks import locked
from tfp_vae.training.models import RunError
from tfp_vae.training.networks import build
from tfp_vae.training.parts import Parts, split
from tfp_vae.training.speed import SpeedBar
from tfp_vae.training.workers import Team
from tfp_vae.vae import VAE

_OF_A_LENGTH = ("CosineDecay", "PolynomialDecay")


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
        ValueError: as `build`.
        DatasetError: no images.
        RunError: the folder holds a run already, or another process trains into it; a loss that
            is not finite; a batch that the replicas cannot share, or a worker that was lost.
        OSError: the folder cannot be written.
    """
    folder, team = pathlib.Path(out), Team(strategy)
    if team.chief:
        _refuse_second_run(folder)
    data = data or datasets.load(recipe.dataset, data_dir)
    with (
        team.watched(folder, _remedy(folder)),
        contextlib.ExitStack() as begun,
        contextlib.ExitStack() as held,
    ):
        # Before anything is written: what cannot be trained leaves no folder behind.
        vae, parts = _build(recipe, data, team), split(data, recipe)
        about = describe(recipe, data, data_dir)
        if team.chief:
            _make(folder)
            held.enter_context(locked(folder))
            _refuse_second_run(folder)  # another process may have been quicker
            Run.create(folder, about)
            begun.enter_context(_withdrawn(folder))
        team.wait()
        run = Run(folder)
        return _continue(run, recipe.epochs, vae, data, parts, verbose, tensorboard, team)


@contextlib.contextmanager
def _withdrawn(folder: pathlib.Path) -> Iterator[None]:
    """Takes the beginning of a run away again whose settings Keras refuses in the first step."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not isinstance(error, RunError) and not Run(folder).epochs_done:
            for name in ("run.json", "state.npz", "pictures/epoch-0000.png", ".lock"):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / "logs", ignore_errors=True)
            for path in (folder / "pictures", folder):
                with contextlib.suppress(OSError):  # something of the user's is in it
                    path.rmdir()
        raise


def _make(folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder}: expected a folder that can be written, got {error}") from error


def _refuse_second_run(folder: pathlib.Path) -> None:
    if (folder / "run.json").exists():
        raise RunError(
            f"{folder}: holds a run already. Go on with it by train --resume "
            f"{shlex.quote(str(folder))}, or give another folder."
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
    dataset: Any = None,
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
        dataset: the path of your own images, if they were moved; the run keeps it.
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
    if data is not None and dataset is not None:
        raise ValueError("data, dataset: expected only one of them, got both.")
    Run(folder)  # refuses a folder of something else before a lock is put into it
    team = Team(strategy)
    lock = locked(pathlib.Path(folder)) if team.chief else contextlib.nullcontext()
    with team.watched(folder, _remedy(folder)), lock:
        run = Run(folder)
        if dataset is not None:
            data = datasets.load(dataset, data_dir)
        data = run.checked(data) if data is not None else run.load_data(data_dir)
        vae, parts = _build(run.recipe, data, team), split(data, run.recipe)
        wanted = run.recipe.epochs if epochs is None else epochs
        team.wait()  # where `train` does: after a restart some may find a run and some none yet
        moved_to = None if dataset is None else datasets.locate(dataset)
        return _continue(run, wanted, vae, data, parts, verbose, tensorboard, team, moved_to)


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
    moved_to: str | None = None,
) -> Run:
    """From the state that the folder holds to the end of epoch number `epochs`.

    With `moved_to`, the run keeps it as the path of its images.
    """
    state = run.load_state(vae)
    try:
        progress = Progress(**(state or {}))
    except TypeError as error:
        raise RunError(
            f"{run.folder / 'state.npz'}: expected the state of a run, got a damaged file."
        ) from error
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
    draws = vae.objective.num_samples
    keeper = Keeper(run, progress, parts, draws, say, tensorboard, team)
    # From here on the folder is written to: all that could be refused was.
    if team.chief:
        if state is not None:
            keeper.publish(vae)  # its process may have been killed before it had
        run.tidy(progress.epoch)
    if team.chief and moved_to is not None:
        run.change_dataset(moved_to)
    if team.chief and epochs != run.recipe.epochs:
        run.change_epochs(epochs)
        # Figures of fewer epochs beside a model of more would be taken for its own.
        (run.folder / "metrics.json").unlink(missing_ok=True)
    recipe = run.recipe
    say(f"validation: {_support.count(parts.validation):,} of the training images are held out")
    if progress.epoch < epochs:
        drop = team.replicas > 1
        say(_of_schedule(recipe, _support.count(parts.train), epochs, drop), end="", flush=True)
        say(f"run: {recipe.name}, epochs {progress.epoch + 1} to {epochs} into {run.folder}")
        own = [callbacks.StopAtNonFinite(), keeper.timer, *keeper.latent, keeper]
        try:
            vae.fit(
                team.shared(parts.training_batches(progress.epoch, drop)),
                validation_data=team.shared(parts.batches(parts.validation, draws)),
                initial_epoch=progress.epoch,
                epochs=epochs,
                verbose=verbose,
                callbacks=[SpeedBar(recipe.batch_size), *own] if verbose else own,
            )
        except callbacks.NonFiniteError as error:
            # With several replicas a second look would take all of them.
            found = None if drop else replay.culprit(run, vae, parts, error)
            place = drop and error.batches is not None
            remedy = " To find the batch and the layer, resume without --strategy." if place else ""
            raise RunError(f"{found or error} {kept(progress.epoch)}{remedy}") from error
    else:
        say(f"run: {recipe.name}, all {epochs} epochs are done in {run.folder}")
    if team.chief:
        finish(run, keeper, data, say)
    team.wait()
    return run if team.chief else Run(run.folder)  # as the chief has left it


def _of_schedule(recipe: Recipe, images: int, epochs: int, whole: bool) -> str:
    """A line where the learning rate falls over another number of steps than there will be.

    Args:
        recipe: with the schedule.
        images: of one pass.
        epochs: of the whole run.
        whole: whether a last, smaller batch is left out.
    """
    rate = recipe.optimizer.get("learning_rate")
    # Of the others it is no length, but the steps in which the rate falls by a factor.
    if not isinstance(rate, Mapping) or rate.get("schedule") not in _OF_A_LENGTH:
        return ""
    planned = rate["decay_steps"] + rate.get("warmup_steps", 0)
    batches = images / recipe.batch_size
    steps = (math.floor if whole else math.ceil)(batches) * recipe.passes * epochs
    if planned == steps:
        return ""
    return (
        f"learning rate: its schedule is of {planned:,} steps, this training of {steps:,}; see "
        "optimizer.learning_rate in the recipe\n"
    )


def _remedy(folder: Any) -> str:
    return (
        "Every finished epoch is kept: start all workers again, as many as you like, with train "
        f"--resume {shlex.quote(str(folder))}."
    )


def _silent(*_: Any, **__: Any) -> None:
    pass
