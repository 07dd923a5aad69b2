"""Recipes of the tasks that end in words: knowledge, attribution, compliance, look-back, memo, redaction."""

from random import Random

from examples.finrisk.draft import DifficultyFactors, Draft, Phrasings, draw_context, draw_phrasing
from examples.finrisk.rulebook import (
    ACCOUNT_MASK,
    CONCEPTS,
    DOCUMENT_OF_ACTIVITY,
    FAMILY_NAMES,
    GIVEN_NAMES,
    INDUSTRIES,
    LONGEST_TENOR_OF_RATING,
    NAME_MASK,
    OUTLOOK_OF_TREND,
    RISK_FACTORS,
    TRENDS,
    VERDICTS,
    Language,
)

DEFINITION_PHRASINGS: Phrasings = {
    "en": ("Define the term.", "What is this term?", "Give the meaning.", "Meaning?"),
    "zh": ("定义 术语。", "术语 是什么?", "给出 含义。", "含义?"),
}
ATTRIBUTION_PHRASINGS: Phrasings = {
    "en": ("Find the main loss.", "What is the main loss?", "Give the main loss.", "Main loss?"),
    "zh": ("找出 主要 损失。", "主要 损失 是什么?", "给出 主要 损失。", "主要 损失?"),
}
COMPLIANCE_PHRASINGS: Phrasings = {
    "en": ("Is it allowed? Cite the rule.", "What is the rule?", "Give the rule.", "Rule?"),
    "zh": ("是否 允许? 引用 规则。", "规则 是什么?", "给出 规则。", "规则?"),
}
PEAK_PHRASINGS: Phrasings = {
    "en": ("Find the peak quarter.", "What is the peak quarter?", "Give the peak.", "Peak?"),
    "zh": ("找出 最高 季度。", "最高 季度 是什么?", "给出 最高。", "最高?"),
}
CHANGE_PHRASINGS: Phrasings = {
    "en": ("Compute the change, first to last.", "What is the change?", "Give the change.", "Change?"),
    "zh": ("计算 首尾 变化。", "变化 是多少?", "给出 变化。", "变化?"),
}
MEMO_PHRASINGS: Phrasings = {
    "en": ("Write a memo to the CRO.", "Draft a memo.", "Give a memo.", "Memo?"),
    "zh": ("写 备忘录 给 风控。", "起草 备忘录。", "给出 备忘录。", "备忘录?"),
}
REDACTION_PHRASINGS: Phrasings = {
    "en": ("Mask the name and account.", "Hide private data.", "Give a safe text.", "Make it safe."),
    "zh": ("隐去 姓名 和 账号。", "隐去 隐私。", "给出 安全 文本。", "安全 处理。"),
}
PEAK_WORD: dict[Language, str] = {"en": "at", "zh": "为"}
CHANGE_WORDS: dict[Language, tuple[str, str]] = {"en": ("up", "down"), "zh": ("上升", "下降")}
CLIENT_WORDS: dict[Language, tuple[str, str]] = {"en": ("client", "account"), "zh": ("客户", "账号")}
MEMO_WORDS: dict[Language, tuple[str, str]] = {"en": ("To CRO", "is"), "zh": ("致 风控", "为")}


def draw_definition(rng: Random, language: Language) -> list[Draft]:
    """A concept's meaning, said for the industry that asks."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, DEFINITION_PHRASINGS, language)
    concepts = CONCEPTS[language]
    concept = rng.choice(tuple(concepts))
    factors = DifficultyFactors(3, 1, 1, ambiguity)
    return [
        Draft(instruction, f"{concept}; {context.text}", f"{context.industry}: {concepts[concept]}", context, factors)
    ]


def draw_risk_attribution(rng: Random, language: Language) -> list[Draft]:
    """The larger of two losses, size first; a narrow lead is one reasoning step more."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, ATTRIBUTION_PHRASINGS, language)
    losses = dict(zip(rng.sample(RISK_FACTORS[language], 2), rng.sample(range(1, 10), 2), strict=True))
    first, second = sorted(losses, key=lambda name: -losses[name])
    narrow = losses[first] - losses[second] == 1
    text = f"{context.text}: " + ", ".join(f"{loss} {name}" for name, loss in losses.items())
    factors = DifficultyFactors(2, 2 + narrow, 2, ambiguity)
    return [Draft(instruction, text, f"{losses[first]} {first}", context, factors)]


def draw_compliance(rng: Random, language: Language) -> list[Draft]:
    """Verdict, document and section: three look-ups in the rule book, by rating and tenor, activity, industry."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, COMPLIANCE_PHRASINGS, language)
    documents = DOCUMENT_OF_ACTIVITY[language]
    activity = rng.choice(tuple(documents))
    limit = LONGEST_TENOR_OF_RATING[context.rating]
    verdict = VERDICTS[language][context.tenor_years > limit]
    section = INDUSTRIES[language].index(context.industry) + 1
    factors = DifficultyFactors(4, 2 + (context.tenor_years == limit), 3, ambiguity)
    output = f"{verdict}, {documents[activity]} s.{section}"
    return [Draft(instruction, f"{activity}; {context.text}", output, context, factors)]


def draw_look_back(rng: Random, language: Language) -> list[Draft]:
    """Default rates of three quarters in a row: the peak, or the change from the first to the last."""
    context = draw_context(rng, language)
    first_quarter = rng.randrange(4)
    quarters = [f"Q{(first_quarter + offset) % 4 + 1}" for offset in range(3)]
    rates = rng.sample(range(1, 10), 3)
    history = ", ".join(f"{quarter} {rate}%" for quarter, rate in zip(quarters, rates, strict=True))
    if rng.random() < 0.5:
        instruction, ambiguity = draw_phrasing(rng, PEAK_PHRASINGS, language)
        output = f"{quarters[rates.index(max(rates))]} {PEAK_WORD[language]} {max(rates)}%"
        steps = 2
    else:
        instruction, ambiguity = draw_phrasing(rng, CHANGE_PHRASINGS, language)
        change = rates[-1] - rates[0]
        output = f"{CHANGE_WORDS[language][change < 0]} {abs(change)}%"
        steps = 3
    factors = DifficultyFactors(2, steps, 2, ambiguity)
    return [Draft(instruction, f"{context.text}: {history}", output, context, factors)]


def draw_memo(rng: Random, language: Language) -> list[Draft]:
    """A fixed form with a hedged outlook; flagged words (`guarantee`, `保证`) never appear."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, MEMO_PHRASINGS, language)
    lcr = rng.randint(60, 160)
    trend = rng.choice(TRENDS[language])
    opening, verb = MEMO_WORDS[language]
    output = f"{opening}: {context.industry} LCR {verb} {lcr}%, {OUTLOOK_OF_TREND[language][trend]}"
    factors = DifficultyFactors(2, 2, 4, ambiguity)
    return [Draft(instruction, f"{context.text}: LCR {lcr}%, {trend}", output, context, factors)]


def draw_redaction(rng: Random, language: Language) -> list[Draft]:
    """Name and account give way to masks, everything else stays."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, REDACTION_PHRASINGS, language)
    given, family = rng.choice(GIVEN_NAMES[language]), rng.choice(FAMILY_NAMES[language])
    name = f"{given} {family}" if language == "en" else f"{family}{given}"
    client_word, account_word = CLIENT_WORDS[language]
    account = rng.randint(1000, 9999)
    text = f"{client_word} {name}, {account_word} {account}, {context.text}"
    output = f"{client_word} {NAME_MASK}, {account_word} {ACCOUNT_MASK}, {context.text}"
    return [Draft(instruction, text, output, context, DifficultyFactors(1, 1, 3, ambiguity))]
