"""What the clauses of a query say, so that two queries can be compared clause by clause.

sqlglot reads the query. Columns stand without the table that they are of, and without aliases: both ``a JOIN b USING
(hadm_id)`` and ``a.hadm_id IN (SELECT b.hadm_id FROM b)`` join ``hadm_id`` to ``hadm_id``. Left out is what cannot
change an answer: the order of rows without LIMIT, and DISTINCT in a query that rows are compared with.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlglot import Dialect, exp

from reward_fns.sql.text import clean_up

# EHRSQL-2024's longest gold query has 347 tokens. sqlglot also tries ways to read a text, of which there may be
# exponentially many: the nodes that it makes in all of them are bounded, too. So a text takes tenths of a second.
MAX_TOKENS, MAX_NODES = 2_000, 5_000

_SQLITE = Dialect.get_or_raise("sqlite")
TIME_FUNCTIONS = {"date", "datetime", "julianday", "strftime", "time", "unixepoch"}
# In EHRSQL's databases of MIMIC-IV, MIMIC-III and eICU: admittime, charttime, startdate, dob, ...
TIME_COLUMN = re.compile(r".*time|.*date|dob|dod")
_TIME_NODES = (exp.TimeToStr, exp.Date, exp.CurrentDate, exp.CurrentTime, exp.CurrentTimestamp)
_QUERIES = (exp.Select, exp.SetOperation)
# Nodes that change nothing, and those that are read on their own.
_NOT_IN_SHAPE = (
    *(exp.Alias, exp.AggFunc, exp.Column, exp.Distinct, exp.Identifier, exp.Literal, exp.Paren, exp.Star, exp.Subquery),
    *_QUERIES,
)
_JOINING = {("EQ",), ("In",), ("NEQ",), ("Not", "EQ"), ("Not", "In")}
EXPRESSION = "(expression)"  # a column that a query computes: aliases of the same one differ
_DECIMALS = re.compile(r"(?:0|[1-9]\d*)\.\d+")

Names = tuple[str, ...]


class Condition(NamedTuple):
    """A comparison of ``columns`` with ``values``. ``shape``: its operator and functions, by the names of sqlglot.

    >>> read_clauses("SELECT age FROM admissions WHERE age > 50").conditions
    Counter({Condition(columns=('age',), shape=('GT',), values=('50',)): 1})
    """

    columns: Names
    shape: Names
    values: Names


@dataclass
class Clauses:
    """How often a query says what. Two queries say the same in a clause if their counters are equal.

    ``joins``: pairs of columns that tables are joined by, with JOIN, IN or =, and set operations. ``columns``: those of
    the answer and of aggregates. ``times``: comparisons of time columns, and calls of functions of time.
    """

    tables: Counter = field(default_factory=Counter)
    joins: Counter = field(default_factory=Counter)
    columns: Counter = field(default_factory=Counter)
    conditions: Counter[Condition] = field(default_factory=Counter)
    times: Counter = field(default_factory=Counter)
    aggregations: Counter = field(default_factory=Counter)
    orders: Counter = field(default_factory=Counter)
    distincts: Counter = field(default_factory=Counter)


def read_clauses(sql: str) -> Clauses | None:
    """The clauses of the query as the sandbox executes it, None where sqlglot cannot read it. Never raises.

    >>> read_clauses("SELECT count(*) FROM patients p").tables
    Counter({'patients': 1})
    """
    try:
        tokens = _SQLITE.tokenize(clean_up(sql))
        if len(tokens) > MAX_TOKENS:
            return None
        (tree,) = _SQLITE.parser(max_nodes=MAX_NODES).parse_into(exp.Select, tokens)
        return _Reader(tree).clauses if isinstance(tree, _QUERIES) else None
    except Exception:  # sqlglot's own errors, RecursionError, and what else an odd text does to a parser
        return None


class _Reader:
    """Goes over the nodes of a query and sorts what they say."""

    def __init__(self, tree: exp.Expression):
        self.clauses = Clauses()
        self._meanings = _meanings(tree)
        self._not_tables = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
        for node in tree.walk():
            self._read(node)

    def _read(self, node: exp.Expression) -> None:
        clauses = self.clauses
        if isinstance(node, exp.Table) and node.name.lower() not in self._not_tables:
            clauses.tables[node.name.lower()] += 1
        elif isinstance(node, exp.Select):
            self._read_select(node)
        elif isinstance(node, exp.SetOperation):
            clauses.joins[node.key, bool(node.args.get("distinct"))] += 1
        elif isinstance(node, exp.Join):
            self._read_join(node)
        elif isinstance(node, exp.Group):
            clauses.aggregations["group by", tuple(sorted(self._names(*node.expressions)))] += 1
        elif isinstance(node, exp.Window):
            partition = self._names(*(node.args.get("partition_by") or ()))
            clauses.orders[node.this.key, partition, self._order(node)] += 1
        elif isinstance(node, exp.AggFunc):
            self._read_aggregate(node)
        elif isinstance(node, exp.Or):
            clauses.conditions[Condition((), ("Or",), ())] += 1

        if isinstance(node, _QUERIES) and node.args.get("limit"):
            limits = [_values(node.args[name]) for name in ("limit", "offset") if node.args.get(name)]
            clauses.orders["limit", self._order(node), *limits] += 1
        elif not any(isinstance(around, exp.Predicate) for around in _around(node)):
            if isinstance(node, exp.Predicate):
                self._read_predicate(node)
            elif _is_time(node) and not any(map(_is_time, _around(node))):
                clauses.times[self._condition(node)] += 1

    def _read_select(self, select: exp.Select) -> None:
        parent = _parent(select)
        compared = isinstance(parent, exp.Predicate)
        if select.args.get("distinct") and not compared:
            self.clauses.distincts["rows"] += 1
        answer = []
        for expression in select.expressions:
            aggregates = _aggregates(expression)
            if aggregates:
                self.clauses.aggregations[_shape(expression), _values(expression)] += 1
            elsewhere = aggregates or isinstance(expression, exp.Predicate)  # its shape is read there
            answer.append((self._names(expression), () if elsewhere else _shape(expression)))
        if not compared and not isinstance(parent, exp.From | exp.Join | exp.CTE):
            self.clauses.columns[tuple(answer)] += 1

    def _read_join(self, join: exp.Join) -> None:
        for column in join.args.get("using") or ():
            self.clauses.joins[(column.name.lower(),) * 2, ("EQ",)] += 1
        if join.side:
            self.clauses.joins[join.side] += 1

    def _read_aggregate(self, function: exp.AggFunc) -> None:
        if names := self._names(function):
            self.clauses.columns[names] += 1
        if isinstance(function.this, exp.Distinct):
            self.clauses.distincts["aggregate"] += 1
        if not isinstance(function.parent, exp.Window):
            self.clauses.aggregations[function.key] += 1

    def _read_predicate(self, node: exp.Predicate) -> None:
        condition = self._condition(node)
        if any(map(_is_time, _own(node))) or any(map(TIME_COLUMN.fullmatch, condition.columns)):
            self.clauses.times[condition] += 1
        elif len(condition.columns) > 1 and not condition.values and condition.shape in _JOINING:
            # a = (SELECT b ...) and a IN (SELECT b ...) join as JOIN ... ON a = b does.
            shape = tuple("EQ" if part == "In" else part for part in condition.shape)
            self.clauses.joins[condition.columns, shape] += 1
        elif not _aggregates(node) or any(isinstance(around, exp.Having) for around in _around(node)):
            self.clauses.conditions[condition] += 1

    def _condition(self, node: exp.Expression) -> Condition:
        columns, values, shape = self._columns(node), _values(node), _shape(node)
        # SQLite reads "aspirin" as a text where there is no such column.
        texts = [column for column in columns[1:] if column.this.args.get("quoted") and not column.table]
        names = [self._name(column) for column in columns if not any(column is text for text in texts)]
        names += [name for query in _own(node) if isinstance(query, _QUERIES) for name in self._answer(query)]
        values += tuple(text.name for text in texts)
        if isinstance(node, exp.In):
            values = tuple(sorted(values))
            shape = tuple("EQ" if part == "In" and len(values) == 1 else part for part in shape)
        return Condition(tuple(sorted(names)), shape, values)

    def _answer(self, query: exp.Expression) -> Names:
        select = query.find(exp.Select)
        return self._names(*select.expressions) if select else ()

    def _order(self, node: exp.Expression) -> tuple:
        order = node.args.get("order")
        keys = order.expressions if order else ()
        return tuple((self._names(key), _shape(key), bool(key.args.get("desc"))) for key in keys)

    def _names(self, *nodes: exp.Expression) -> Names:
        """The columns of expressions, without those of queries in them."""
        return tuple(self._name(column) for node in nodes for column in self._columns(node))

    def _columns(self, node: exp.Expression) -> list[exp.Column]:
        return [each for each in _own(node) if isinstance(each, exp.Column)]

    def _name(self, column: exp.Column) -> str:
        name = column.name.lower()
        return self._meanings.get(name, name)


def _meanings(tree: exp.Expression) -> dict[str, str]:
    """Alias -> the column that it stands for, or ``EXPRESSION``."""
    meanings = {}
    for alias in tree.find_all(exp.Alias):
        name, meant = alias.alias.lower(), alias.this
        if all(column.name.lower() != name for column in meant.find_all(exp.Column)):
            meanings[name] = meant.name.lower() if isinstance(meant, exp.Column) else EXPRESSION
    return meanings


def _own(node: exp.Expression) -> Iterator[exp.Expression]:
    """The nodes of an expression. A query in it is one node."""
    return node.walk(bfs=False, prune=lambda each: isinstance(each, _QUERIES) and each is not node)


def _around(node: exp.Expression) -> Iterator[exp.Expression]:
    """The nodes around this one in the same query, from the inside."""
    parent = node.parent
    while parent is not None and not isinstance(parent, _QUERIES):
        yield parent
        parent = parent.parent


def _parent(node: exp.Expression) -> exp.Expression | None:
    """The node around this one, past parentheses and set operations."""
    parent = node.parent
    while isinstance(parent, exp.Paren | exp.Subquery | exp.SetOperation):
        parent = parent.parent
    return parent


def _shape(node: exp.Expression) -> Names:
    """The operators and functions of an expression."""
    parts = ["Not"] if isinstance(_parent(node), exp.Not) else []
    for each in _own(node):
        if isinstance(each, exp.Anonymous):
            parts.append(each.name.lower())
        elif not isinstance(each, _NOT_IN_SHAPE):
            parts += [*(["Not"] if each.args.get("negate") else []), type(each).__name__]
    return tuple(parts)


def _values(node: exp.Expression) -> Names:
    """The literals of an expression: 5.0 as 5, but '05' as it is."""
    texts = (each.name for each in _own(node) if isinstance(each, exp.Literal))
    return tuple(text.rstrip("0").rstrip(".") if _DECIMALS.fullmatch(text) else text for text in texts)


def _is_time(node: exp.Expression) -> bool:
    return isinstance(node, _TIME_NODES) or (isinstance(node, exp.Anonymous) and node.name.lower() in TIME_FUNCTIONS)


def _aggregates(node: exp.Expression) -> bool:
    """Whether an expression has an aggregate, windows aside."""
    return any(
        isinstance(each, exp.AggFunc) and not any(isinstance(around, exp.Window) for around in _around(each))
        for each in _own(node)
    )
