"""How Sphinx makes the site: ``sphinx-build -W --keep-going -n docs build/docs``.

Every page reads on GitHub as well, so links are paths of files. Nothing comes from another host,
neither while building nor in the built pages: equations are MathML.
"""

import os
import pathlib
import pkgutil
import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import inspect, logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import tfp_vae
from tfp_vae import cli

ROOT = pathlib.Path(__file__).resolve().parents[1]

project = "tfp_vae"
copyright = "the authors of tfp_vae, Apache 2.0"
version = release = tfp_vae.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "py:obj"  # of `names` in docstrings

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # the names that GitHub gives to headings

# Else methods of Keras that are overridden show Keras' words, in its own markup.
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"  # of a module the order of its __all__
autodoc_typehints_format = "short"
add_module_names = False
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"tfp_vae {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"

ROOMS = {"VAE", *(room.name for room in pkgutil.iter_modules(tfp_vae.__path__))}
# Pages of the site that are files of the project's root.
PROJECT = {
    "project/readme": "README.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/changelog": "CHANGELOG.md",
    "project/results": "benchmarks/RESULTS.md",
}


def in_place(app: Sphinx, page: str, source: list[str]) -> None:
    """Put a file of the root in the place of its page, and let links lead where the site has it."""
    here = (app.srcdir / page).parent
    home = here
    if page in PROJECT:
        home = (ROOT / PROJECT[page]).parent
        source[0] = (ROOT / PROJECT[page]).read_text()
    pages = {ROOT / file: app.srcdir / f"{page}.md" for page, file in PROJECT.items()}

    def moved(link: re.Match[str]) -> str:
        text, path, anchor = link.groups("")
        file = pathlib.Path(os.path.normpath(home / path))
        if file.is_dir():
            return text[1:-1]  # a page on GitHub, but none here
        return f"{text}({os.path.relpath(pages.get(file, file), here)}{anchor})"

    source[0] = re.sub(r"(\[[^]]*\])\((?!https?:|#)([^)#]+)(#[^)]*)?\)", moved, source[0])


def named(app: Sphinx, doctree: nodes.document) -> None:
    """Make names of this package in the pages links to the reference: one that is gone is found."""
    page = app.env.docname
    if page in PROJECT or page.startswith("reference/"):
        return
    for literal in list(doctree.findall(nodes.literal)):
        target = re.match(r"[\w.]+", literal.astext())
        first, *others = target.group().removeprefix("tfp_vae.").split(".") if target else [""]
        first = "VAE" if first == "vae" else first  # the name of a model in examples
        if first in ROOMS and others and not isinstance(literal.parent, nodes.reference):
            link = addnodes.pending_xref(
                "", literal.deepcopy(), refdomain="py", reftype="obj", refdoc=page,
                reftarget=f"tfp_vae.{'.'.join([first, *others])}", refwarn=True,
            )  # fmt: skip
            literal.replace_self(link)


def linked(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Where names that docstrings write short lead: ``VAE.encode``, ``layers.KLDivergence...``."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    first, *others = target.removeprefix("tfp_vae.").split(".")
    ours = target.startswith("tfp_vae.") or (others and first in ROOMS)
    found = env.get_domain("py").find_obj(env, None, None, target, "obj", 1) if ours else ()
    if len(found) == 1:
        ((name, place),) = found
        return make_refnode(
            app.builder, node["refdoc"], place.docname, place.node_id, content, name
        )
    # Arguments and names of other libraries stay as they are; a name of ours must lead somewhere.
    return None if ours else content


def math(self: Any, node: nodes.Element, block: bool) -> None:
    try:
        mathml = tex2mathml(node.astext(), as_block=block)
        # The thin spaces that TeX puts around the name of a function.
        mathml = mathml.replace("<mo>&ApplyFunction;", '<mo rspace="0.17em">&ApplyFunction;')
        before = r"((?:</m(?:i|n|sub|sup|subsup|frac)>|\)</mo>)\s*)(<mi>log)"
        mathml = re.sub(before, r'\1<mspace width="0.17em"></mspace>\2', mathml)
        self.body.append(f'<div class="equation">{mathml}</div>' if block else mathml)
    except MathError as error:
        logging.getLogger(__name__).warning("%s: %s", error, node.astext(), location=node)
    raise nodes.SkipNode


def constructor(
    app: Sphinx, what: str, name: str, cls: Any, options: Any, given: str, returned: Any
) -> tuple[str, Any] | None:
    """The arguments of a Keras class: its own are hidden behind Keras' ``__new__``."""
    if what != "class" or given != "(*args, **kwargs)":
        return None
    found = inspect.signature(cls.__init__, bound_method=True)
    text = inspect.stringify_signature(
        found, show_return_annotation=False, unqualified_typehints=True
    )
    return text, returned


class Commands(SphinxDirective):
    """What ``tfp-vae --help`` prints, and each of its commands."""

    def run(self) -> list[nodes.Node]:
        os.environ["COLUMNS"] = "90"
        parser = cli.parser()
        (group,) = (act.choices for act in parser._actions if isinstance(act.choices, dict))
        found: list[nodes.Node] = [self.help(parser)]
        for name, command in group.items():
            title, help = nodes.title(name, name), self.help(command)
            found.append(nodes.section("", title, help, ids=[name], names=[name]))
        return found

    def help(self, parser: Any) -> nodes.literal_block:
        text = parser.format_help()
        return nodes.literal_block(text, text, language="text")


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer(
        "mathml",
        (lambda self, node: math(self, node, False), None),
        (lambda self, node: math(self, node, True), None),
    )
    app.add_directive("commands", Commands)
    app.connect("autodoc-process-signature", constructor)
    app.connect("doctree-read", named)
    app.connect("missing-reference", linked)
    app.connect("source-read", in_place)
