"""Which classes and functions of Keras plain data may name: none with code, none that reads files.

For a ``.keras`` file and for the settings of a recipe, which may both be a stranger's.
"""

from collections.abc import Iterator
from typing import Any

import keras

# Where Keras may look for what the data name. Not keras.utils, keras.saving and keras.config, whose
# functions download files or turn safe mode off.
_MODULES = {
    "builtins",  # Keras' word for its own functions: activations, losses and their like
    "keras",
    *(
        f"keras.{name}"
        for name in (
            "activations", "constraints", "dtype_policies", "initializers", "layers", "losses",
            "metrics", "models", "optimizers", "optimizers.schedules", "quantizers", "random",
            "regularizers",
        )
    ),
}  # fmt: skip
_PRIVATE_MODULES = ("keras.src.models.", "keras.src.ops.")  # what has no public name

#: Layers that hold code, or that read files which their settings name.
REFUSED = {
    "__lambda__", "FlaxLayer", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer",
    "TextVectorization", "TorchModuleWrapper", "__typespec__",
}  # fmt: skip

# Values, which Keras writes without a module. All else without one it looks up as older versions
# did, by the name of its class alone.
_VALUES = {
    "__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__",
    "__tuple__",
}  # fmt: skip


def check(found: Any) -> None:
    """Refuse plain data that name anything else, at any depth.

    Raises:
        ValueError: with the name and the module of the first one.
    """
    for entry in _entries(found):
        if not _allowed(entry):
            kind = entry["class_name"]
            name = entry.get("config") if kind == "function" else kind
            raise ValueError(
                "expected layers of Keras without code, of tfp_vae or registered ones, got "
                f"{name} of {entry.get('module')}. If it is yours, decorate it with "
                "@keras.saving.register_keras_serializable and import it before."
            )


def _entries(found: Any) -> Iterator[dict[str, Any]]:
    """What the data ask Keras to make."""
    pending = [found]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)


def _allowed(entry: dict[str, Any]) -> bool:
    kind, module = entry["class_name"], entry.get("module")
    name = entry.get("config") if kind == "function" else kind
    # With a dot Keras would look in another module than the one that is named.
    if not isinstance(name, str) or "." in name or name in REFUSED:
        return False
    if "module" not in entry:
        return name in _VALUES
    registered = name if kind == "function" else entry.get("registered_name")
    if isinstance(registered, str):
        found = keras.saving.get_registered_object(registered)
        if found is not None and (kind == "function" or found.__name__ == kind):
            return True
    return module is None or (
        isinstance(module, str) and (module in _MODULES or module.startswith(_PRIVATE_MODULES))
    )
