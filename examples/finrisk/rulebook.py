"""The fictional rule book of the corpus: contexts, thresholds, documents and concepts, in two languages.

Both the generator and the verifier read it, because an answer such as "FR-21 allows ten years only down to AA" follows
from a table and not from arithmetic. The documents FR-11 ... FR-16 are invented: nothing here is legal advice.
"""

from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
LICENCE = "Apache-2.0"

# Contexts. A tenor is a number of years.
INDUSTRIES: dict[Language, tuple[str, ...]] = {
    "en": ("bank", "energy", "retail", "property", "tech"),
    "zh": ("银行", "能源", "零售", "地产", "科技"),
}
TENORS: tuple[int, ...] = (1, 3, 5, 10)
RATINGS: tuple[str, ...] = ("AAA", "AA", "A", "BBB", "BB")
YEAR_SUFFIX: dict[Language, str] = {"en": "y", "zh": "年"}

# Compliance: the document depends on the activity, its section on the industry, the verdict on rating and tenor.
DOCUMENT_OF_ACTIVITY: dict[Language, dict[str, str]] = {
    "en": {
        "loan": "FR-11",
        "bond": "FR-12",
        "swap": "FR-13",
        "deposit": "FR-14",
        "option": "FR-15",
        "lease": "FR-16",
    },
    "zh": {
        "贷款": "FR-11",
        "债券": "FR-12",
        "互换": "FR-13",
        "存款": "FR-14",
        "期权": "FR-15",
        "租赁": "FR-16",
    },
}
LONGEST_TENOR_OF_RATING: dict[str, int] = {"AAA": 10, "AA": 10, "A": 5, "BBB": 3, "BB": 1}
VERDICTS: dict[Language, tuple[str, str]] = {"en": ("allowed", "not allowed"), "zh": ("允许", "不允许")}

# Liquidity coverage ratio (high-quality liquid assets over net outflow), in per cent: risk level and advice.
MIN_LOW_RISK_LCR = 120
MIN_MEDIUM_RISK_LCR = 100
RISK_LEVELS: dict[Language, tuple[str, str, str]] = {"en": ("low", "medium", "high"), "zh": ("低", "中", "高")}
ADVICE: dict[Language, tuple[str, str, str]] = {
    "en": ("hold, it may last", "watch, it may fall", "add cash, it may breach"),
    "zh": ("持有, 可能 持续", "关注, 可能 下降", "补充 现金, 可能 违规"),
}

RISK_FACTORS: dict[Language, tuple[str, ...]] = {
    "en": ("rates", "credit", "FX", "equity", "oil"),
    "zh": ("利率", "信用", "外汇", "股票", "油价"),
}

# Memo: what a trend of the ratio lets us expect, and what to do.
TRENDS: dict[Language, tuple[str, ...]] = {"en": ("up", "down", "flat"), "zh": ("上升", "下降", "持平")}
OUTLOOK_OF_TREND: dict[Language, dict[str, str]] = {
    "en": {
        "up": "it may rise, so hold",
        "down": "it may fall, so add cash",
        "flat": "it may last, so watch",
    },
    "zh": {"上升": "可能 上升, 建议 持有", "下降": "可能 下降, 建议 补充 现金", "持平": "可能 持续, 建议 关注"},
}

CONCEPTS: dict[Language, dict[str, str]] = {
    "en": {
        "credit risk": "a loss when credit fails",
        "market risk": "a loss when rates move",
        "liquidity risk": "a loss when cash is short",
        "credit spread": "yield minus base",
        "expected loss": "PD times LGD times EAD",
        "LCR": "HQLA over outflow",
        "rating": "a grade of credit",
        "tenor": "years to the end",
    },
    "zh": {
        "信用 风险": "信用 违约 损失",
        "市场 风险": "利率 变化 损失",
        "流动性 风险": "现金 不足 损失",
        "利差": "收益率 减 基准",
        "预期 损失": "PD 乘 LGD 乘 EAD",
        "LCR": "HQLA 除 流出",
        "评级": "信用 等级",
        "期限": "到期 年数",
    },
}

# Redaction.
GIVEN_NAMES: dict[Language, tuple[str, ...]] = {
    "en": ("Ann", "Ben", "Cai", "Dan", "Eva", "Fay"),
    "zh": ("明", "芳", "强", "丽", "伟", "静"),
}
FAMILY_NAMES: dict[Language, tuple[str, ...]] = {
    "en": ("Lee", "Kim", "Fox", "Ray", "Cole", "Hart"),
    "zh": ("王", "李", "张", "陈", "刘", "赵"),
}
NAME_MASK = "[NAME]"
ACCOUNT_MASK = "[ACCT]"


def risk_level_index(lcr_percent: int) -> int:
    """0 (low), 1 (medium) or 2 (high): the position in `RISK_LEVELS` and `ADVICE`."""
    if lcr_percent >= MIN_LOW_RISK_LCR:
        return 0
    return 1 if lcr_percent >= MIN_MEDIUM_RISK_LCR else 2
