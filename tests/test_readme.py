"""What the README shows, run in its order, on digits instead of MNIST."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()
SMALLER = {
    'load("mnist")': 'load("digits")',
    "epochs=3": "epochs=1",
    "num_samples=1000": "num_samples=50",
    "num_results=500": "num_results=50",
}


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
    assert all(figure in README for figure in SMALLER)
    names = {}
    for block in blocks:
        code = block
        for figure, smaller in SMALLER.items():
            code = code.replace(figure, smaller)
        exec(compile(code, "README.md", "exec"), names)
    assert names["q"].batch_shape == (5,)
    assert names["p"].batch_shape == (7, 5)
    assert (tmp_path / "manifold.png").stat().st_size > 10_000
    assert names["draws"].shape == (50, 2)
