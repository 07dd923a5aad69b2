"""Recipes of the tasks that end in a number, and of the three-step chain that builds on one.

All arithmetic is on integers (tenths of a per cent, basis points), so no answer depends on binary rounding.
"""

from random import Random

from examples.finrisk.draft import Context, DifficultyFactors, Draft, Phrasings, draw_context, draw_phrasing
from examples.finrisk.rulebook import ADVICE, RISK_LEVELS, Language, risk_level_index

SPREAD_PHRASINGS: Phrasings = {
    "en": ("Compute the credit spread.", "What is the credit spread?", "Give the credit spread.", "Spread?"),
    "zh": ("计算 利差。", "利差 是多少?", "给出 利差。", "利差?"),
}
EXPECTED_LOSS_PHRASINGS: Phrasings = {
    "en": ("Compute the expected loss.", "What is the expected loss?", "Give the expected loss.", "Expected loss?"),
    "zh": ("计算 预期 损失。", "预期 损失 是多少?", "给出 预期 损失。", "预期 损失?"),
}
LCR_PHRASINGS: Phrasings = {
    "en": ("Compute the LCR.", "What is the LCR?", "Give the LCR.", "LCR?"),
    "zh": ("计算 LCR。", "LCR 是多少?", "给出 LCR。", "LCR?"),
}
CHAIN_PHRASINGS: tuple[Phrasings, Phrasings, Phrasings] = (
    {
        "en": ("Step 1: compute the LCR.", "Step 1: what is the LCR?", "Step 1: LCR?"),
        "zh": ("第 1 步: 计算 LCR。", "第 1 步: LCR 是多少?", "第 1 步: LCR?"),
    },
    {
        "en": ("Step 2: judge the risk.", "Step 2: what is the risk?", "Step 2: risk?"),
        "zh": ("第 2 步: 判断 风险。", "第 2 步: 风险 是多少?", "第 2 步: 风险?"),
    },
    {
        "en": ("Step 3: advise.", "Step 3: what do you advise?", "Step 3: so?"),
        "zh": ("第 3 步: 建议。", "第 3 步: 建议 是什么?", "第 3 步: 所以?"),
    },
)
YIELD_WORDS: dict[Language, tuple[str, str]] = {"en": ("yield", "base"), "zh": ("收益率", "基准")}
OUTFLOW_WORD: dict[Language, str] = {"en": "outflow", "zh": "流出"}
RISK_WORD: dict[Language, str] = {"en": "risk", "zh": "风险"}
OUTFLOWS: tuple[int, ...] = (10, 20, 25, 40, 50)


def _tenths(value: int) -> str:
    return f"{value // 10}.{value % 10}"


def draw_credit_spread(rng: Random, language: Language) -> list[Draft]:
    """Yield minus base, one decimal; a borrow between the digits is one reasoning step more."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, SPREAD_PHRASINGS, language)
    base = rng.randrange(10, 40, 5)
    spread = rng.randrange(1, 60)
    yield_word, base_word = YIELD_WORDS[language]
    text = f"{context.text}: {yield_word} {_tenths(base + spread)}%, {base_word} {_tenths(base)}%"
    borrows = (base + spread) % 10 < base % 10
    factors = DifficultyFactors(1, 2 + borrows, 2, ambiguity)
    return [Draft(instruction, text, f"{_tenths(spread)}%", context, factors)]


def draw_expected_loss(rng: Random, language: Language) -> list[Draft]:
    """Default probability times loss given default times exposure, two decimals; from a million on, a digit more."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, EXPECTED_LOSS_PHRASINGS, language)
    default_percent = rng.randint(1, 9)
    loss_percent = rng.randrange(20, 100, 20)
    exposure = rng.randrange(10, 100, 10)
    hundredths = default_percent * loss_percent * exposure // 100
    text = f"{context.text}: PD {default_percent}%, LGD {loss_percent}%, EAD {exposure}"
    factors = DifficultyFactors(2, 4 + (hundredths >= 100), 3, ambiguity)
    return [Draft(instruction, text, f"{hundredths // 100}.{hundredths % 100:02d}", context, factors)]


def _draw_liquidity(rng: Random) -> tuple[int, int, int]:
    """Liquid assets and outflow whose ratio is a whole per cent from 60 to 160, and that ratio."""
    outflow = rng.choice(OUTFLOWS)
    whole = [assets for assets in range(outflow * 6 // 10, outflow * 16 // 10 + 1) if assets * 100 % outflow == 0]
    assets = rng.choice(whole)
    return assets, outflow, assets * 100 // outflow


def _liquidity_text(context: Context, assets: int, outflow: int) -> str:
    return f"{context.text}: HQLA {assets}, {OUTFLOW_WORD[context.language]} {outflow}"


def draw_liquidity_coverage(rng: Random, language: Language) -> list[Draft]:
    """Liquid assets over net outflow, a whole per cent."""
    context = draw_context(rng, language)
    instruction, ambiguity = draw_phrasing(rng, LCR_PHRASINGS, language)
    assets, outflow, lcr = _draw_liquidity(rng)
    factors = DifficultyFactors(1, 2 + (outflow in (25, 40)), 2, ambiguity)
    return [Draft(instruction, _liquidity_text(context, assets, outflow), f"{lcr}%", context, factors)]


def draw_lcr_chain(rng: Random, language: Language) -> list[Draft]:
    """Three rows: the ratio, the level it means, the advice that follows; each input holds the answers before it."""
    context = draw_context(rng, language)
    assets, outflow, lcr = _draw_liquidity(rng)
    level = risk_level_index(lcr)
    facts = _liquidity_text(context, assets, outflow)
    inputs = (
        facts,
        f"{facts}; LCR {lcr}%",
        f"{facts}; LCR {lcr}%; {RISK_WORD[language]} {RISK_LEVELS[language][level]}",
    )
    outputs = (f"{lcr}%", RISK_LEVELS[language][level], ADVICE[language][level])
    drafts = []
    for step, (text, output) in enumerate(zip(inputs, outputs, strict=True), start=1):
        instruction, ambiguity = draw_phrasing(rng, CHAIN_PHRASINGS[step - 1], language)
        drafts.append(Draft(instruction, text, output, context, DifficultyFactors(step, 1 + step, 2, ambiguity)))
    return drafts
