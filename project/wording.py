"""Shortens jsonargparse's messages about invalid values to a sentence.

It explains, for each type that an option may have, why the value is not of that type.
"""

from __future__ import annotations

import re

# A class lacks arguments.
INCOMPLETE = re.compile(
    r'Parser key "(?P<key>[\w.]+)":\s+Does not validate against any of the Union subtypes.*'
    r"class_path '(?P<kind>[\w.]+)':\s+the following arguments are required: (?P<missing>[\w, ]+)",
    re.DOTALL,
)
# There is no class of that name.
NO_CLASS = re.compile(
    r'Parser key "(?P<key>[\w.]+)":.*Expected a dot import path string: (?P<name>\S+)', re.DOTALL
)
# A class has a setting that YAML cannot express, such as one of an enumeration.
NO_TEXT = re.compile(r"cannot represent an object.*class_path='(?P<kind>[\w.]+)'", re.DOTALL)
# A value is none of those that an option may have.
NO_VALUE = re.compile(
    r'(?:Parser key "(?P<key>[\w.]+)":\s+)?Does not validate against any of the Union subtypes.*'
    r"Errors:\s+(?P<why>.*)Given value type:.*Given value: (?P<value>.*)",
    re.DOTALL,
)
# Reasons about types that were not meant.
NOISE = re.compile(
    r"- (Expected a <class '(NoneType|list)'>|Not a valid subclass of .*)", re.DOTALL
)


def in_plain_words(message: str) -> str:
    """Returns the useful part of a message, or all of it.

    >>> in_plain_words('Parser key "a.b": Expected a dot import path string: C')
    'a.b: there is no class C to import.'
    """
    if found := INCOMPLETE.search(message):
        return f"{found['key']} {found['kind']} needs {found['missing']}."
    if found := NO_CLASS.search(message):
        return f"{found['key']}: there is no class {found['name']} to import."
    if found := NO_TEXT.search(message):
        return (
            f"{found['kind']} has settings that cannot be written down; for a limit in time there "
            "is --trainer.max_time, else derive a class without them."
        )
    if found := NO_VALUE.search(message):
        meant = NOISE.sub("", found["why"]).strip() or found["why"].partition("\n")[0]
        why = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", meant)
        of = f"{found['key']} cannot be {found['value'].strip()}: " if found["key"] else ""
        return f"{of}{why.strip().removeprefix('- ')}"
    return message
