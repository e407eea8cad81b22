"""What the README shows, run in its order, on digits instead of MNIST."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_two_commands_are_the_first_code_of_the_readme():
    first = re.search(r"```bash\n(.*?)```", README, re.S).group(1).splitlines()
    assert first == [
        "pip install . && python examples/train_mnist.py",
        'pip install ".[test]" && pytest',
    ]


def test_pictures_of_the_readme_are_there():
    pictures = re.findall(r"\]\((docs/images/[^)]+)\)", README)
    assert pictures
    for picture in pictures:
        assert (ROOT / picture).stat().st_size > 1000


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(blocks) == 7
    names = {}
    for block in blocks:
        code = block.replace('load("mnist")', 'load("digits")')
        exec(compile(code, "README.md", "exec"), names)
    assert names["q"].batch_shape == (5,)
    assert names["p"].batch_shape == (7, 5)
    assert (tmp_path / "manifold.png").stat().st_size > 10_000
    assert names["draws"].shape == (500, 2)


def test_the_readme_leaves_no_figure_open():
    assert not re.search(r"@[A-Z]+@", README)
