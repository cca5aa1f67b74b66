"""A YAML loader that refuses a key which stands twice in one mapping, where YAML's own would silently take the last."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError


class UniqueKeyLoader(yaml.SafeLoader):
    """``yaml.SafeLoader`` for files that people write. Keys that a merge (``<<``) brings may be repeated.

    Raises:
        ComposerError: A mapping has a key twice; the message has both lines.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose one mapping, and look at its keys before any merge."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in lines:
                    raise ComposerError(
                        f"{key.value!r} stands here", lines[key.value], "and a second time here", key.start_mark
                    )
                lines[key.value] = key.start_mark
        return node
