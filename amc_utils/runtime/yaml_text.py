"""YAML as people mean it: plain values under names that stand there once."""

from __future__ import annotations

from typing import Any

import yaml


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    names = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise yaml.constructor.ConstructorError(
                None, None, f"the name {name!r} stands there twice", node.value[number][0].start_mark
            )
    return loader.construct_mapping(node, deep=True)


class _Loader(yaml.SafeLoader):
    """Plain values alone, and no name twice, of which YAML's own reader takes the last."""

    yaml_constructors = {  # noqa: RUF012 a table of the parent
        **yaml.SafeLoader.yaml_constructors,
        yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG: _mapping,
    }


def read_yaml(text: str, what: str) -> dict[str, Any]:
    """Names and values of a YAML text; nothing in it is executed.

    Args:
        text: the YAML.
        what: names it in errors, for instance "profile smoke.yaml".

    Raises:
        ValueError: no YAML, no mapping, a name twice, a tag that would build an object.
    """
    try:
        content = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"{what} must be YAML of names and plain values, {problem}{where}") from None
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{what} must be YAML of names and plain values, {problem}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{what} must be YAML of names and plain values, it is no mapping of names")
    return content
