"""The judge of `plugin`: a function that an installed package offers under the entry-point group `taskheat.rules`.

    [project.entry-points."taskheat.rules"]
    no_pii = "acme_rules.pii:judge"             def judge(text: str, prompt: str, options: dict) -> str | None

The function must depend on its arguments alone: rows are judged in many processes, in any order.
"""

from importlib.metadata import entry_points

from scheduler.errors import ConfigError
from scheduler.output_spec import PluginRule
from train.data.rules.judge import Judge, quoted

GROUP = "taskheat.rules"


def plugin(rule: PluginRule) -> Judge:
    """The function by its name. Its own exceptions are not caught: a rule that fails has judged nothing.

    Raises:
        ConfigError: Nothing of that name is installed, it cannot be imported, or it is not a function; later, it
            returns something other than a string or None.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if rule.name not in installed:
        names = ", ".join(sorted(installed)) or "none"
        raise ConfigError(f"rule plugin {rule.name!r} is not installed (installed under {GROUP}: {names})")
    point = installed[rule.name]
    try:
        function = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"rule plugin {rule.name!r} ({point.value}) cannot be imported: {error}; mend it") from error
    if not callable(function):
        raise ConfigError(f"rule plugin {rule.name!r} ({point.value}) is {type(function).__name__}, not a function")

    def judge(text: str, prompt: str) -> str | None:
        fault = function(text, prompt, rule.options)
        if fault is not None and not isinstance(fault, str):
            raise ConfigError(
                f"rule plugin {rule.name!r} ({point.value}) returned {quoted(repr(fault))}; "
                "it must return what is wrong as a string, or None"
            )
        return fault

    return judge
