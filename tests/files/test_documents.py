from __future__ import annotations

import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from propagate.errors import InputError, UsageError, WeightsError
from propagate.files.documents import MAX_DEPTH, check_regular_file, parse_json, parse_yaml, read_json, read_text

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
numbers = st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_plain_documents_are_read_as_they_are(value):
    assert parse_json(json.dumps(value), "It") == value
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "It") == value


@given(st.text(max_size=60) | st.from_regex(r"[\[\]{}:,&*!<>|'\"\-a-z0-9 \n]{0,60}", fullmatch=True))
def test_whatever_is_wrong_leaves_as_the_error_that_was_asked_for(document):
    for parse in (parse_json, parse_yaml):
        message = "It is fine"
        try:
            parse(document, "It", WeightsError)
        except WeightsError as error:
            message = error.message
        assert message.startswith("It ")
        assert "\n" not in message


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"a": 1,', "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "nested too deeply"),
        ("[1" + "0" * 5000 + "]", "too large"),
        ("[18446744073709551616]", "too large"),
        ("[1e999]", "too large"),
        ("[NaN]", "NaN is not JSON"),
        ("[-Infinity]", "-Infinity is not JSON"),
        ('{"ear": 1, "nose": 2, "ear": 3}', "the key 'ear' appears twice"),
        ('["\\ud800"]', "a character that is not text"),
    ],
)
def test_json_that_cannot_be_meant(document, message):
    with pytest.raises(InputError, match=message):
        parse_json(document, "The file x.json")


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("a: [1", "is not valid YAML"),
        ("a: !!timestamp x", "line 1 is a timestamp"),
        ("a: 2020-01-01", "line 1 is a timestamp"),
        ('a: !!binary "%%%"', "line 1 is a binary"),
        ("a: !!omap [b: 1]", "line 1 is a omap"),
        ("a: !!set {b, c}", "line 1 is a set"),
        ("a: !!python/object:os.system x", "is not valid YAML"),
        ("a: !!int x", "cannot be used"),
        ("a: 010", "010 in line 1 is not a plain number"),
        ("a: -1:30", "1:30 in line 1 is not a plain number"),
        ("a: 1:30.5", "1:30.5 in line 1 is not a plain number"),
        ('a: "\\UFFFFFFFF"', "cannot be used"),
        ('a: "\\uD800"', "a character that is not text"),
        ("a: 1\nb: 2\na: 3", "the key 'a' appears twice, in line 3 again"),
        ("1: b", "the key 1 is not text"),
        ("? [a, b]\n: 1", "a key is a list"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: " + "[" * 3000, "nested too deeply|not valid YAML"),
        (f"a: {'f' * 10}\nb: 0x{'f' * 300}", "too large"),
        (LAUGHS, "more than 100000 values"),
    ],
)
def test_yaml_that_cannot_be_meant(document, message):
    with pytest.raises(UsageError, match=message):
        parse_yaml(document, "The preset x.yaml", UsageError)


def test_what_yaml_is_used_for():
    document = "base: &base {radius: .inf}\nfeatures:\n  <<: *base\n  name: rgb\n  radius: 3\n"
    assert parse_yaml(document, "It") == {"base": {"radius": float("inf")}, "features": {"name": "rgb", "radius": 3}}


def test_what_is_merged_from_a_mapping_that_merges_itself_is_no_repetition():
    document = "base: &base {k: 1}\nx:\n  inner: &inner\n    <<: *base\n    k: 2\ny:\n  <<: *inner\n"
    assert parse_yaml(document, "It") == {"base": {"k": 1}, "x": {"inner": {"k": 2}}, "y": {"k": 2}}


def test_text_comes_without_a_byte_order_mark(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match=r"The keypoints file .*a\.csv is not UTF-8 text"):
        read_text(tmp_path / "a.csv", "keypoints file")


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "dangling", "loop", "null"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, kind):
    path = tmp_path / "there"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "null":
        path = tmp_path / "a\0b"
    with pytest.raises(InputError, match=r"does not exist|is a folder|is a pipe|cannot be read"):
        check_regular_file(path)
    with pytest.raises(InputError):
        read_text(path)
