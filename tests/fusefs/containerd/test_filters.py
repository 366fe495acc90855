from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusefs.containerd.filters import BadFilter, Fields, Filter

_FIELDS: Fields = {
    "kind": "committed",
    "name": "default/3/sha256:ab",
    "parent": "",
    "labels": {"containerd.io/snapshot.ref": "sha256:ab", "a.b": "c", "odd": 'say "hi", twice'},
}


@pytest.mark.parametrize(
    ("filters", "holds"),
    [
        ([], True),
        ([""], True),
        (["kind==committed"], True),
        (["kind==active"], False),
        (["kind!=active"], True),
        (["kind==active", "kind==committed"], True),
        (["kind==committed,parent=="], None),
        (['kind==committed,parent==""'], True),
        (['labels."containerd.io/snapshot.ref"==sha256:ab,parent==""'], True),
        (['labels."containerd.io/snapshot.ref"==sha256:ac,parent==""'], False),
        (["labels.a.b"], True),
        (["labels.b"], False),
        (["labels"], False),
        (["nosuch"], False),
        (["name~=^default/"], True),
        (["name~=/3.sha/"], True),
        (["name~=|^other|"], False),
        ([r'labels.odd=="say \"hi\", twice"'], True),
        ([r'labels.odd=="say \x22hi\042, twice"'], True),
        ([" kind == committed , name ~= sha "], True),
        (["kind"], True),
        (["kind=committed"], None),
        (["kind==committed,"], None),
        (["kind===committed"], None),
        (["==committed"], None),
        (['name=="open'], None),
        (['name=="\\UFFFFFFFF"'], None),
        (["name~=("], None),
        (["name~=" + "x" * 5000], None),
    ],
)
def test_filters_hold_or_not_or_are_refused(filters: list[str], holds: bool | None) -> None:
    if holds is None:
        with pytest.raises(BadFilter):
            Filter.parse(filters)
        return
    assert Filter.parse(filters).holds(_FIELDS) is holds


@given(st.lists(st.text(max_size=40), max_size=3))
def test_any_text_is_a_filter_or_refused(filters: list[str]) -> None:
    try:
        Filter.parse(filters).holds(_FIELDS)
    except BadFilter:
        return
