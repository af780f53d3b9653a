"""config/replicator.yaml is the reference of the configuration: valid, complete, and true about defaults."""

from __future__ import annotations

import itertools
import os
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from replicator.settings import ENV_PREFIX, MODES, Settings

EXAMPLE = (Path(__file__).parents[2] / "config" / "replicator.yaml").read_text()
_KEY = re.compile(r"^ *(?:- )?(?:# )?([a-z_]+):(?: |$)")


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv(f"{ENV_PREFIX}SECRETS_DIR", str(tmp_path))


@pytest.fixture
def shown() -> Settings:
    return Settings(**yaml.safe_load(EXAMPLE))


def test_it_is_valid_by_itself(shown: Settings) -> None:
    modes = {rule.mode: rule.name for rule in shown.rules}
    assert modes == {"ordered": "orders", "versioned": "profiles", "active-active": "carts"}
    assert list(modes) == list(MODES)


def test_it_stays_valid_with_every_optional_key_in_force() -> None:
    Settings(**yaml.safe_load(_with_optional_keys()))


def test_every_key_of_the_settings_is_in_it() -> None:
    assert list(_missing(Settings, [yaml.safe_load(_with_optional_keys())], "")) == []


def test_every_key_is_explained_above_the_line_where_it_first_stands() -> None:
    unexplained = _names(Settings)
    for above, line in itertools.pairwise(EXAMPLE.splitlines()):
        key, other = _KEY.match(line), _KEY.match(above)
        if key and key[1] in unexplained:
            is_prose = above.lstrip().startswith("# ") and (other is None or other[1] not in _names(Settings))
            assert is_prose, f"nothing explains {line.strip()!r}"
            unexplained.remove(key[1])


@pytest.mark.parametrize("section", ["coordination", "admin", "polling", "apply", "log", "conflicts"])
def test_a_section_shows_the_defaults(shown: Settings, section: str) -> None:
    assert _differences(getattr(shown, section)) == []


def test_durations_at_the_top_show_the_defaults(shown: Settings) -> None:
    assert shown.drain == Settings.model_fields["drain"].default
    assert shown.tombstone_ttl == Settings.model_fields["tombstone_ttl"].default


def test_rules_show_the_default_choices(shown: Settings) -> None:
    differences = {
        rule.mode: set(_differences(rule)) - {"replicas", "filter", "cache", "events"} for rule in shown.rules
    }
    assert differences == {"ordered": set(), "versioned": set(), "active-active": set()}


def test_every_rule_shows_every_key_of_its_mode(shown: Settings) -> None:
    written = {rule["name"]: set(rule) for rule in yaml.safe_load(_with_optional_keys())["rules"]}
    assert written == {rule.name: set(type(rule).model_fields) for rule in shown.rules}


def _with_optional_keys() -> str:
    """The example with the optional keys, which stand there as comments, in force."""
    return re.sub(rf"^( *)# (?=(?:{'|'.join(_names(Settings))}):(?: |$))", r"\1", EXAMPLE, flags=re.MULTILINE)


def _names(annotation: Any) -> set[str]:
    """The names of all fields of all models inside an annotation."""
    names = {name for argument in typing.get_args(annotation) for name in _names(argument)}
    for model in _models(annotation):
        names |= set(model.model_fields).union(*(_names(field.annotation) for field in model.model_fields.values()))
    return names


def _missing(model: type[BaseModel], places: list[Any], path: str) -> Iterator[str]:
    """Fields that none of the places where this model stands shows."""
    for name, field in model.model_fields.items():
        values = [place[name] for place in places if isinstance(place, dict) and name in place]
        if not values:
            yield f"{path}{name}"
        inner = [part for value in values for part in _parts(value, field.annotation)]
        for nested in _models_within(field.annotation):
            yield from _missing(nested, inner, f"{path}{name}.")


def _parts(value: Any, annotation: Any) -> list[Any]:
    """The places inside a value where a model may stand: the value itself, and each of a collection."""
    if list(_models(annotation)) or not isinstance(value, dict | list):
        return [value]
    return [value, *value.values()] if isinstance(value, dict) else value


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _models_within(annotation: Any) -> Iterator[type[BaseModel]]:
    yield from _models(annotation)
    for argument in typing.get_args(annotation):
        yield from _models_within(argument)


def _differences(model: BaseModel) -> list[str]:
    """Optional fields that do not have their default."""
    fields = type(model).model_fields.items()
    return [n for n, field in fields if not field.is_required() and getattr(model, n) != field.default]
