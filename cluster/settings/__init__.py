"""Settings from YAML files and dotted overrides to one validated model, and back to YAML.

    defaults  <  files, left to right  <  overrides `a.b=value`, left to right

    text ─ reading ─► nodes ─ merge, overrides ─► one tree ─ pydantic ─► model ─ dump ─► text
                                                     └─ complaints: what is wrong, who set it, what was meant

Each value is held as a `Node` that remembers the file and line that set it, through merging and until validation: a
relative path is resolved against its own file, and a complaint names the line to mend. The model's annotations are the
schema: they say which strings are paths, which keys may be overridden, and what a mistyped key may have meant.

Mappings merge, lists replace. In a union of models told apart by `type`, a mapping that states another `type` replaces
the earlier one; where `type` is missing it is the only member that has all the given keys. A model's shorter spelling
is what its before-validator `_short_form` makes of it, which must leave a long or a partial form as it is.

YAML is read by the 1.2 core schema: `3e-3` is a number, `no` and `2024-01-01` are strings. `${VAR}` and
`${VAR:-default}` stand for environment variables in every string (`$${` is a literal `${`); what they expand to stays a
string until the model converts it.

Not done here: no interpolation between settings, no includes, no deletion of a mapping's key, and no override of a key
that contains a dot.
"""

from cluster.settings.dump import dump_config
from cluster.settings.load import load_config

__all__ = ["dump_config", "load_config"]
