from __future__ import annotations

import subprocess
import sys

import pytest

import propagate


def test_every_public_name_is_there():
    for name in propagate.__all__:
        assert getattr(propagate, name) is not None


def test_the_public_names_are_listed():
    assert set(propagate.__all__) <= set(dir(propagate))
    assert "__version__" in dir(propagate)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segment_anything'"):
        propagate.segment_anything  # noqa: B018


def test_importing_the_package_does_not_import_torch():
    code = "import sys, propagate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
