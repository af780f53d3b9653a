"""Which source tables a rule means: one by its name, or every one that a glob or its tags find."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Self

from pydantic import BeforeValidator, Discriminator, Field, StringConstraints, Tag, model_validator

from replicator.settings.values import Frozen, Table

TABLE_TAGS = ("one", "many")
"""Names that the validator gives to the two ways to write `table`; they appear in locations of errors only."""

_WILDCARDS = frozenset("*?[")
TableGlob = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?!\[\]-]+$", max_length=255)]
_Wild = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.!-]*[*?\[][A-Za-z0-9_.*?!\[\]-]*$", max_length=255)]
"""A glob that no name is, for the schema: what is written as plain text is either one or the other."""

TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128)]
TagValue = Annotated[str, StringConstraints(max_length=256)]


class TableChoice(Frozen):
    """Every table of the source region that fits; tables come and go while the daemon runs."""

    glob: TableGlob | None = Field(default=None, description="names: * and ? and [abc] as a shell knows them")
    tag: dict[TagKey, TagValue] = Field(default={}, max_length=50, description="tags that a table must have, all of it")

    @model_validator(mode="after")
    def _chooses(self) -> Self:
        if self.glob is None and not self.tag:
            raise ValueError("must have a glob, a tag, or both")
        return self

    def __str__(self) -> str:
        """How people name it."""
        tags = ", ".join(f"{name}={value}" for name, value in self.tag.items())
        parts = [*([self.glob] if self.glob is not None else []), *([f"tagged {tags}"] if tags else [])]
        return " ".join(parts)

    def names(self, table: str) -> bool:
        """Whether a table's name fits; its tags are another question."""
        return self.glob is None or fnmatchcase(table, self.glob)

    def tagged(self, tags: dict[str, str]) -> bool:
        """Whether a table has every tag."""
        return all(tags.get(name) == value for name, value in self.tag.items())


def _way(value: object) -> str:
    one = isinstance(value, str) and not _WILDCARDS & set(value)
    return TABLE_TAGS[0] if one or not isinstance(value, str | dict | TableChoice) else TABLE_TAGS[1]


def _choice(value: object) -> object:
    return {"glob": value} if isinstance(value, str) else value


TableSelection = Annotated[
    Annotated[Table, Tag(TABLE_TAGS[0])]
    | Annotated[TableChoice, BeforeValidator(_choice, json_schema_input_type=_Wild | TableChoice), Tag(TABLE_TAGS[1])],
    Discriminator(_way),
]
"""The value of a rule's `table`."""
