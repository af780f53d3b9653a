"""Changed copies of values, and their fields.

Values are Structs of msgspec: one takes a fortieth of the time of a dataclass to define, which every start of a process
pays, and a fifth to make. A few are dataclasses, where a field is left out of the constructor or of the text.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

if TYPE_CHECKING:
    from dataclasses import replace  # noqa: TID251 - the type checker knows the fields of both through this one alone
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """A copy with other values in these fields."""
        if isinstance(value, Struct):
            return structs.replace(value, **changes)
        return dataclasses.replace(value, **changes)  # noqa: TID251 - the one place


__all__ = ["field_names", "replace"]


def field_names(value: Any) -> tuple[str, ...]:
    """The fields of a value, or of a class of values, in their order; none when it is neither."""
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return getattr(value, "__struct_fields__", ())
