"""Predictions made from gold queries: rewrites that keep the answer, mutations that change it, and damage.

``predictions(golds, count, seed)`` is the test tool; every one of ``MUTATIONS`` is a function of a gold query, all gold
queries and a random generator. None of them calls the machine's clock or a nondeterministic function: what ours
refuses and the scorer executes is tested elsewhere.
"""

import random
import re
from collections.abc import Callable, Iterator, Sequence

LITERAL = re.compile(r"'[^']*'")
NUMBER = re.compile(r"(?<![\w.'-])\d+(?![\w.'-])")
KEYWORD = re.compile(r"\b(select|from|where|and|or|group by|order by|in|count|distinct|limit|desc|as)\b", re.I)


def keyword_case(sql: str, _, rng: random.Random) -> str:
    change = rng.choice([str.lower, str.upper, str.title])
    return KEYWORD.sub(lambda match: change(match[0]), sql)


def line_breaks(sql: str, _, rng: random.Random) -> str:
    return re.sub(" ", lambda _: rng.choice([" ", "\n", "  ", "\n    "]), sql)


def split_operators(sql: str, _, rng: random.Random) -> str:
    return sql.replace(">=", "> =").replace("<=", "< =").replace("!=", "! =")


def spaces_in_literals(sql: str, _, rng: random.Random) -> str:
    return LITERAL.sub(lambda match: match[0].replace(" ", "  "), sql)


def semicolons(sql: str, _, rng: random.Random) -> str:
    return sql.rstrip(";") + rng.choice([";", " ;", ";;", "; ;", ";\n"])


def line_comment(sql: str, _, rng: random.Random) -> str:
    words = sql.split(" ")
    place = rng.randrange(len(words))
    return " ".join(words[: place + 1]) + " -- why\n" + " ".join(words[place + 1 :])


def block_comment(sql: str, _, rng: random.Random) -> str:
    return re.sub(" ", " /* why */ ", sql, count=rng.randrange(1, 4))


def subquery(sql: str, _, rng: random.Random) -> str:
    inner = sql.rstrip("; ")
    return rng.choice(
        [
            f"SELECT * FROM ({inner})",
            f"WITH answer AS ({inner}) SELECT * FROM answer",
            f"SELECT * FROM ({inner}) AS answer ORDER BY 1 DESC",
            f"SELECT DISTINCT * FROM ({inner})",
            f"SELECT * FROM ({inner}) UNION SELECT * FROM ({inner})",
            f"SELECT * FROM ({inner}) UNION ALL SELECT * FROM ({inner})",
            f"SELECT * FROM ({inner}) LIMIT {rng.choice([0, 1, 2, 100, 101])}",
            f"SELECT *, 1 FROM ({inner})",
            f"SELECT 1, * FROM ({inner})",
            f"SELECT count(*) FROM ({inner})",
            f"SELECT ({inner})",
            f"VALUES (({inner}))",
            f"SELECT EXISTS ({inner})",
        ]
    )


def cell_type(sql: str, _, rng: random.Random) -> str:
    cell = rng.choice(
        ["CAST(a AS TEXT)", "CAST(a AS REAL)", "CAST(a AS BLOB)", "CAST(a AS INTEGER)", "a + 0", "a || ''", "a * 1.0",
         "round(a, 3)", "round(a, 2)", "' ' || a", "a || ' '", "a + 0.0004", "a + 0.0006", "nullif(a, a)", "-a",
         "quote(a)", "CAST(a || x'ff' AS TEXT)", "a * 1e300 * 1e300", "upper(a)", "'0' || a", "a || '.0'"]
    )  # fmt: skip
    return f"WITH answer(a) AS ({sql.rstrip('; ')}) SELECT {cell} FROM answer"


def other_number(sql: str, _, rng: random.Random) -> str:
    return NUMBER.sub(lambda match: str(int(match[0]) + rng.choice([0, 1, -1])), sql, count=1)


def other_literal(sql: str, golds: Sequence[str], rng: random.Random) -> str:
    literals = LITERAL.findall(rng.choice(golds)) or ["'f'"]
    return LITERAL.sub(lambda _: rng.choice(literals).replace("\\", ""), sql, count=1)


def other_function(sql: str, _, rng: random.Random) -> str:
    functions = ["count", "min", "max", "avg", "sum", "total"]
    return re.sub(rf"\b({'|'.join(functions)})\(", lambda _: rng.choice(functions) + "(", sql, count=1, flags=re.I)


def other_comparison(sql: str, _, rng: random.Random) -> str:
    operators = ["=", "<", ">", "<=", ">=", "!=", "IS"]
    return re.sub(r" (=|<|>|<=|>=) ", lambda _: f" {rng.choice(operators)} ", sql, count=1)


def distinct(sql: str, _, rng: random.Random) -> str:
    if re.search(r"\bDISTINCT\b", sql, re.I):
        return re.sub(r"\bDISTINCT\b", "", sql, count=1, flags=re.I)
    return re.sub(r"\bSELECT\b", "SELECT DISTINCT", sql, count=1, flags=re.I)


def other_gold(sql: str, golds: Sequence[str], rng: random.Random) -> str:
    return rng.choice(golds)


def dropped_word(sql: str, _, rng: random.Random) -> str:
    words = sql.split(" ")
    del words[rng.randrange(len(words))]
    return " ".join(words)


def cut_off(sql: str, _, rng: random.Random) -> str:
    return sql[: rng.randrange(1, len(sql))]


def scorer_words(sql: str, _, rng: random.Random) -> str:
    """Words that the scorer's clean-up replaces."""
    word = rng.choice(["current_time", "current_date", "'now'", "NOW()", "CURDATE()", "CURTIME()", "'%y %j'",
                       "DATE_SUB(NOW(), INTERVAL 1 DAY)", "DATE_ADD(CURDATE(), INTERVAL 2 MONTH)",
                       "DATE_SUB('2100-12-31 23:59:00', INTERVAL 3 YEAR)", "heart_rate_lower + heart_rate_upper",
                       "sao2_upper", "( mean_bp_lower < mean_bp_upper )"])  # fmt: skip
    columns = rng.choice([f"a, {word}", word, f"strftime(a, {word})"])
    return f"WITH answer(a) AS ({sql.rstrip('; ')}) SELECT {columns} FROM answer"


def constant(sql: str, _, rng: random.Random) -> str:
    return rng.choice(["SELECT 1", "SELECT 0", "SELECT NULL", "SELECT 'x'", "SELECT '1.0'", "SELECT 1.00004"])


def no_query(sql: str, _, rng: random.Random) -> str:
    return rng.choice(["null", "SELECT", "SELECT 1; SELECT 2", "DELETE FROM patients", "EXPLAINED", "answer", "1"])


MUTATIONS: tuple[Callable[[str, Sequence[str], random.Random], str], ...] = (
    keyword_case, line_breaks, split_operators, spaces_in_literals, semicolons, line_comment, block_comment, subquery,
    subquery, cell_type, cell_type, other_number, other_literal, other_function, other_comparison, distinct, other_gold,
    dropped_word, cut_off, scorer_words, constant, no_query,
)  # fmt: skip


def predictions(golds: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, str]]:
    """``count`` pairs of a prediction and its gold query; a third of the predictions are mutated twice."""
    rng = random.Random(seed)
    for number in range(count):
        gold = rng.choice(golds)
        prediction = MUTATIONS[number % len(MUTATIONS)](gold, golds, rng)
        if rng.random() < 1 / 3:
            prediction = rng.choice(MUTATIONS[:7])(prediction, golds, rng)
        yield prediction, gold
