"""Recipes against the table of the systems they reproduce."""

import json

import keras
import numpy as np
import pytest

from tfp_vae import objectives, priors, recipes, training
from tfp_vae.recipes import RecipeError

CVAE = {"images": (28, 28, 1), "encoder": [(13, 13, 32), (6, 6, 64)],
        "decoder": [(7, 7, 32), (14, 14, 64), (28, 28, 32), (28, 28, 1)]}  # fmt: skip
# The parameters are counted by hand: kernel * kernel * in * out + out of each layer.
ROWS = {
    "cvae-mnist-50d": {**CVAE, "parameters": (249_316, 117_217), "row": (50, 100, 100, 1e-4)},
    "cvae-mnist-2d": {**CVAE, "parameters": (28_036, 41_953), "row": (2, 32, 10, 1e-4)},
    "cvae-mnist-2d-long": {**CVAE, "parameters": (28_036, 41_953), "row": (2, 100, 100, 1e-4)},
    "cvae-mnist-saved": {**CVAE, "parameters": (249_316, 117_217), "row": (50, 100, 100, 1e-4)},
    "cvae-mnist-conditional": {
        "images": (28, 28, 1), "classes": 10, "encoder": [(784,), (28, 28, 1), (28, 28, 2), (8,)],
        "decoder": [(18,), (28, 28, 1)], "parameters": (63_824, 67_041),
        "row": (8, 100, 10, 1e-3),
    },
    "mlp-fashion-2d": {
        "images": (28, 28, 1), "encoder": [(256,), (4,)], "decoder": [(256,), (784,)],
        "parameters": (201_988, 202_256), "row": (2, 100, 50, 1e-3),
    },
    "conv-fashion-2d": {
        "images": (28, 28, 1),
        "encoder": [(14, 14, 32), (7, 7, 32), (128,), (4,)],
        "decoder": [(128,), (1568,), (7, 7, 32), (14, 14, 32), (14, 14, 32), (29, 29, 32),
                    (28, 28, 1)],
        "parameters": (211_172, 230_913), "row": (2, 100, 15, 1e-3),
    },
    "mlp-mnist": {
        "images": (28, 28, 1), "encoder": [(500,), (200,), (20,)],
        "decoder": [(200,), (500,), (784,)], "parameters": (496_720, 495_484),
        "row": (10, 100, 50, 1e-3),
    },
    "mlp-mnist-gaussian": {
        "images": (28, 28, 1), "encoder": [(500,), (200,), (20,)],
        "decoder": [(200,), (500,), (784,)], "parameters": (496_720, 495_484),
        "row": (10, 100, 50, 1e-3),
    },
    "ae-mnist": {
        "images": (28, 28, 1), "encoder": [(500,), (200,), (4,)],
        "decoder": [(200,), (500,), (784,)], "parameters": (493_504, 493_884),
        "row": (2, 100, 10, 1e-3),
    },
    "cvae-mnist-512": {
        "images": (28, 28, 1), "encoder": [(13, 13, 512), (6, 6, 512)],
        "decoder": [(7, 7, 32), (14, 14, 512), (28, 28, 512), (28, 28, 1)],
        "parameters": (2_438_660, 2_517_089), "row": (2, 32, 10, 1e-4),
    },
    "cvae-cifar10": {
        "images": (32, 32, 3), "encoder": [(15, 15, 32), (7, 7, 64)],
        "decoder": [(8, 8, 32), (16, 16, 64), (32, 32, 32), (32, 32, 6)],
        "parameters": (822_464, 302_886), "row": (128, 100, 50, 1e-4),
    },
    "iwae-paper-vae": {
        "images": (28, 28, 1), "encoder": [(200,), (200,), (100,)],
        "decoder": [(200,), (200,), (784,)], "parameters": (217_300, 207_984),
        "row": (50, 100, 100, 1e-3),
    },
    "iwae-paper-iwae-50": {
        "images": (28, 28, 1), "encoder": [(200,), (200,), (100,)],
        "decoder": [(200,), (200,), (784,)], "parameters": (217_300, 207_984),
        "row": (50, 100, 30, 2e-3),
    },
    "residual-mnist": {  # the encoder's count has 618,496 of its flow and 99,584 of the prior's
        "images": (28, 28, 1), "encoder": [(14, 14, 32), (7, 7, 64), (256,), (128,), (32,)],
        "decoder": [(256,), (7, 7, 64), (14, 14, 32), (28, 28, 1)],
        "parameters": (1_772_128, 1_032_417), "row": (32, 128, 32, 1e-5),
    },
    "autoregressive-mnist": {
        "images": (28, 28, 1), "encoder": [(14, 14, 32), (7, 7, 64), (256,), (128,), (32,)],
        "decoder": [(256,), (7, 7, 64), (14, 14, 32), (28, 28, 32), (28, 28, 1)],
        "parameters": (1_370_656, 1_050_849), "row": (32, 128, 32, 1e-5),
    },
}  # fmt: skip


def test_every_row_has_a_recipe():
    assert set(recipes.RECIPES) == set(ROWS)


def is_subsequence(wanted, shapes):
    remaining = iter(shapes)
    return all(shape in remaining for shape in wanted)


@pytest.mark.parametrize("name", ROWS)
def test_recipe_is_its_row_and_trains(name):
    row, recipe = ROWS[name], recipes.get(name)
    rate = recipe.optimizer["learning_rate"]
    if isinstance(rate, dict):
        # The cosine ends with the run: batches of the 59,000 images that are not for validation.
        steps = -(-59_000 // recipe.batch_size) * recipe.epochs * recipe.passes
        assert rate["decay_steps"] + rate.get("warmup_steps", 0) == steps
        rate = rate["initial_learning_rate"]
    assert (recipe.latent_dim, recipe.batch_size, recipe.epochs, rate) == row["row"]
    vae = training.build(recipe, row["images"], row.get("classes"))
    assert (vae.encoder.count_params(), vae.decoder.count_params()) == row["parameters"]
    for part in ("encoder", "decoder"):
        shapes = [tuple(layer.output.shape[1:]) for layer in getattr(vae, part).layers]
        assert is_subsequence(row[part], shapes), shapes
    x = np.random.default_rng(0).integers(0, 2, (8, *row["images"])).astype("float32")
    before = vae.get_weights()
    history = vae.fit(x, np.arange(8), batch_size=4, verbose=0).history
    assert np.isfinite([values[-1] for values in history.values()]).all()
    changed = [not np.array_equal(a, b) for a, b in zip(before, vae.get_weights(), strict=True)]
    assert np.mean(changed) > 0.9


def test_what_the_table_says_of_data_and_objective():
    for name, recipe in recipes.RECIPES.items():
        flows = name.startswith(("residual", "autoregressive"))
        assert recipe.use_exact_kl != (flows or name.startswith("cvae"))
        binary = "dynamic" if flows or name.startswith("iwae") else "none"
        assert recipe.binarization == ("threshold" if name.startswith("cvae-mnist") else binary)
        assert recipe.kl_weight == (0 if name == "ae-mnist" else 1)
        # Grey pixels under a Bernoulli formula: a reader of the figures must be told.
        bernoulli = recipe.decoder.get("likelihood", "bernoulli") == "bernoulli"
        if recipe.binarization == "none" and bernoulli:
            assert "no density" in recipe.remarks()[0]


@pytest.mark.parametrize("name", ROWS)
def test_recipe_goes_through_json(name):
    recipe = recipes.get(name)
    assert recipes.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_replace_leaves_the_original_alone():
    recipe = recipes.get("cvae-mnist-2d")
    other = recipe.replace(epochs=3, **{"optimizer.learning_rate": 1, "decoder.units": [5]})
    assert (other.epochs, other.optimizer["learning_rate"], other.decoder["units"]) == (3, 1, [5])
    assert recipe.epochs == 10
    assert "units" not in recipe.decoder
    long = recipes.get("residual-mnist")
    deep = long.replace(
        **{"optimizer.learning_rate.decay_steps": 7, "encoder.posterior.units": [3]}
    )
    rate = deep.optimizer["learning_rate"]
    assert (rate["decay_steps"], rate["schedule"]) == (7, "CosineDecay")
    assert deep.encoder["posterior"]["units"] == [3]
    assert long.optimizer["learning_rate"]["decay_steps"] == 57_008
    recipe.encoder["filters"] = [1]
    assert "filters" not in recipes.get("cvae-mnist-2d").encoder


REMARKS = [
    pytest.param("cvae-mnist-2d", {}, [], id="binary"),
    pytest.param("cvae-mnist-2d", {"binarization": "none"}, ["cross-entropy"], id="made grey"),
    pytest.param("mlp-mnist", {}, ["cross-entropy"], id="grey"),
    pytest.param("mlp-mnist", {"binarization": "dynamic"}, [], id="made binary"),
    pytest.param("mlp-mnist", {"decoder.likelihood": "normal"}, [], id="normal"),
    pytest.param("mlp-mnist-gaussian", {}, ["fixed scale"], id="fixed scale"),
    pytest.param("ae-mnist", {}, ["cross-entropy", "KL is not in the loss"], id="autoencoder"),
    pytest.param("ae-mnist", {"kl_weight": 1.0}, ["cross-entropy"], id="no autoencoder"),
    pytest.param("mlp-mnist", {"binarization": "dynamic", "objective.kl_weight": 0},
                 ["KL is not in the loss"], id="weight in the objective"),
    pytest.param("mlp-mnist", {"binarization": "dynamic", "remark": "My own."}, ["My own."],
                 id="own"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "expected"), REMARKS)
def test_remarks_are_those_of_the_settings(name, changes, expected):
    remarks = recipes.get(name).replace(**changes).remarks()
    assert len(remarks) == len(expected)
    for remark, words in zip(remarks, expected, strict=True):
        assert words in remark


def test_a_summary_says_what_was_changed():
    """Of what it speaks of: it stands in the model's card."""
    recipe = recipes.get("ae-mnist")
    assert recipe.replace(epochs=3, seed=5, batch_size=7).summary == recipe.summary
    other = recipe.replace(dataset="digits", kl_weight=1.0)
    assert other.summary == f"{recipe.summary} (but for dataset, kl_weight)"
    again = other.replace(latent_dim=3, kl_weight=2.0)
    assert again.summary == f"{recipe.summary} (but for dataset, latent_dim, kl_weight)"
    assert recipe.replace(summary="mine", latent_dim=3).summary == "mine"


BAD = [
    pytest.param(lambda r: recipes.get("cvae-minst-2d"), "Did you mean 'cvae-mnist-2d'", id="name"),
    pytest.param(lambda r: r.replace(epoch=3), "Did you mean 'epochs'", id="setting"),
    pytest.param(lambda r: r.replace(**{"optimiser.learning_rate": 3}), "Did you mean 'optimizer'",
                 id="dotted"),
    pytest.param(lambda r: r.replace(**{"epochs.first": 3}), "epochs has no parts", id="no parts"),
    pytest.param(lambda r: r.replace(**{"encoder.no.units": 3}), "no has no parts", id="no table"),
    pytest.param(lambda r: r.replace(epochs=0), "epochs: expected at least 1, got 0", id="zero"),
    pytest.param(lambda r: r.replace(seed=2**32), r"seed: expected an integer below 2\*\*32",
                 id="seed"),
    pytest.param(lambda r: r.replace(epochs="10"), "epochs: expected an integer", id="text"),
    pytest.param(lambda r: r.replace(batch_size=True), "batch_size: expected an", id="boolean"),
    pytest.param(lambda r: r.replace(kl_weight=-1), "kl_weight: expected at least 0", id="weight"),
    pytest.param(lambda r: r.replace(kl_weight=float("nan")), "kl_weight: expected at", id="nan"),
    pytest.param(lambda r: r.replace(binarization="treshold"), "Did you mean 'threshold'",
                 id="binarization"),
    pytest.param(lambda r: r.replace(dtype_policy="bfloat16"), "Did you mean 'mixed_bfloat16'",
                 id="dtype_policy"),
    pytest.param(lambda r: r.replace(pictures=["manifolds"]), "Did you mean 'manifold'", id="pic"),
    pytest.param(lambda r: r.replace(encoder=[]), "encoder: expected a table", id="table"),
    pytest.param(lambda r: recipes.Recipe.from_dict({"name": "x"}), "expected the settings",
                 id="missing"),
]  # fmt: skip


def test_objective_and_prior_are_built_from_plain_data():
    recipe = recipes.get("cvae-mnist-2d").replace(
        objective={"name": "IWAE", "num_samples": 3, "gradient": "dreg",
                   "kl_weight": {"name": "LinearWarmUp", "steps": 7}},
        prior={"name": "GaussianMixture", "num_components": 4},
    )  # fmt: skip
    vae = training.build(recipe, (28, 28, 1))
    assert isinstance(vae.objective, objectives.IWAE)
    assert vae.objective.num_samples == 3
    assert vae.objective.gradient == "dreg"
    assert vae.objective.kl_weight.steps == 7
    assert isinstance(vae.prior, priors.GaussianMixture)
    assert (vae.prior.latent_dim, vae.prior.num_components) == (2, 4)
    default = training.build(recipes.get("cvae-mnist-2d"), (28, 28, 1))
    assert isinstance(default.objective, objectives.ELBO)
    assert isinstance(default.prior, priors.StandardNormal)


@pytest.mark.parametrize("outside", ["float32", "mixed_bfloat16"])
def test_the_dtype_policy_is_the_recipes_own(outside):
    recipe = recipes.get("cvae-mnist-2d")
    keras.config.set_dtype_policy(outside)
    try:
        single = training.build(recipe, (28, 28, 1))
        mixed = training.build(recipe.replace(dtype_policy="mixed_bfloat16"), (28, 28, 1))
        with pytest.raises(RecipeError):
            training.build(recipe.replace(**{"prior.name": "Normal"}), (28, 28, 1))
        assert keras.config.dtype_policy().name == outside
    finally:
        keras.config.set_dtype_policy("float32")
    x = np.random.default_rng(0).integers(0, 2, (8, 28, 28, 1)).astype("float32")
    for vae, compute in ((single, "float32"), (mixed, "bfloat16")):
        layers = [*vae.encoder.layers, *vae.decoder.layers]
        kernels = [layer for layer in layers if hasattr(layer, "kernel")]
        assert {layer.compute_dtype for layer in kernels} == {compute}
        assert {layer.kernel.dtype for layer in kernels} == {"float32"}
        assert vae(x).log_prob(x).dtype == "float32"
    # The same weights: what is lost is bfloat16's, of three significant figures.
    mixed.set_weights(single.get_weights())
    a, b = (vae.elbo(x, seed=0).numpy() for vae in (single, mixed))
    assert 0 < np.abs(a - b).max() < 0.01 * np.abs(a).max()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"objective": {"name": "IWEA"}}, "Did you mean 'IWAE'", id="objective"),
        pytest.param({"objective": {"name": "Objective"}}, "expected one of", id="abstract"),
        pytest.param({"objective.num_sample": 3}, "Did you mean 'num_samples'", id="argument"),
        pytest.param({"objective.num_samples": 0}, "objective: num_samples: expected", id="zero"),
        pytest.param({"prior.name": "Normal"}, "prior.name: expected one of", id="prior"),
        pytest.param({"prior.latent_dim": 3}, "argument of prior: expected", id="given elsewhere"),
        pytest.param({"objective.kl_weight": {"name": "WarmUp"}}, "Did you mean", id="warm-up"),
    ],
)
def test_bad_objectives_and_priors(settings, message):
    recipe = recipes.get("cvae-mnist-2d").replace(**settings)
    with pytest.raises(RecipeError, match=message):
        training.build(recipe, (28, 28, 1))


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_input(call, message):
    with pytest.raises(RecipeError, match=message):
        call(recipes.get("cvae-mnist-2d"))
