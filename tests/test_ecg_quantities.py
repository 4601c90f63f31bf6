"""How the ECG grader reads numbers, units and leads."""

from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from reward_fns.ecg_grader.leads import leads
from reward_fns.ecg_grader.quantities import agree, quantities
from reward_fns.ecg_grader.text import Text
from reward_fns.ecg_grader.units import EVERYDAY, unit


def one(text: str):
    (found,) = quantities(Text(text).clean)
    return found


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("300 mg", "0.3 g"),
        ("300 mg", "300 milligrams"),
        ("6 mcg", "6 µg"),
        ("6 ug", "6 micrograms"),
        ("6 μg", "0.006 mg"),
        ("2,500 mL", "2.5 L"),
        ("2\u202f500 ml", "2.5 litres"),
        ("1,250.5 ms", "1.2505 s"),
        (".35 s", "350 ms"),
        ("0,35 s", "350 msec"),
        ("75 bpm", "75 beats per minute"),
        ("75/min", "75 beats/min"),
        ("75 min⁻¹", "75 per minute"),
        ("90 mm Hg", "90 mmHg"),
        ("1 mV", "1000 µV"),
        ("5 small squares", "5 mm"),
        ("5 mEq/L", "5 mmol/l"),
        ("5 mg/kg", "5 mg per kg"),
        ("5000 units", "5,000 IU"),
        ("45 degrees", "45°"),
        ("30 %", "30 percent"),
        ("150 × 10⁹/L", "150 x 10^9 per liter"),
        ("120–200 ms", "0.12 to 0.20 s"),
        ("QRS &gt; 120 ms", "over 0.12 s"),
        ("≥ 2 mm", "at least 2 mm"),
        ("38 °C", "38 degrees Celsius"),
        ("120", "0.12 s"),
    ],
)
def test_the_same_quantity(text, other):
    assert agree(one(text), one(other))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("300 mg", "300 mcg"),
        ("300 mg", "300 g"),
        ("300 mg", "300 mL"),
        ("300 mg", "300 units"),
        ("300 mg", "300 tablets"),
        ("300 mg", "300 mEq"),
        ("5 mg/kg", "5 mg"),
        ("400 ms", "400 s"),
        ("400 ms", "400 µs"),
        ("1,200 ms", "1 ms"),
        ("1,200 ms", "200 ms"),
        ("12,000 per µL", "12 per µL"),
        ("90 mmHg", "90 mm"),
        ("75 bpm", "75 ms"),
        ("&lt; 120 ms", "over 120 ms"),
        ("1 mV", "1 µV"),
        ("2 weeks", "2 days"),
        ("0,12 s", "12 s"),
    ],
)
def test_other_quantities(text, other):
    assert not agree(one(text), one(other))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2,3", [1, 2, 3]),
        ("V1 and T4b", []),
        ("in the 1990s", []),
        ("at 5 pm", [5]),
        ("75 bpm and 90 mmHg", [1.25, 90]),
        ("every 3 to 5 minutes", [180]),
        ("12-lead ECG", [12]),
    ],
)
def test_numbers_in_a_text(text, expected):
    assert [found.low for found in quantities(text)] == expected


@given(st.integers(1, 10**6), st.sampled_from(["ms", "mg", "mcg", "mL", "mmol/L", "bpm"]))
def test_thousands_may_be_marked(number, name):
    assert one(f"{number:,} {name}") == one(f"{number} {name}")


@given(st.integers(1, 10**5), st.sampled_from(EVERYDAY), st.sampled_from(EVERYDAY))
def test_a_unit_of_another_dimension_never_agrees(number, name, other):
    assume(unit(name).dimension != unit(other).dimension)
    assert not agree(one(f"{number} {name}"), one(f"{number} {other}"))


def test_bounds():
    assert (one("not more than 5 mm").low, one("not more than 5 mm").high) == (-inf, 0.005)
    assert one("5 mm or more").high == inf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Lead II", {"II"}),
        ("LEAD III shows it", {"III"}),
        ("Leads 2, 3 and AVF", {"II", "III", "aVF"}),
        ("DII and DIII", {"II", "III"}),
        ("V1 to 4", {"V1", "V2", "V3", "V4"}),
        ("V1, 2 and 3", {"V1", "V2", "V3"}),
        ("aV F and avl", {"aVF", "aVL"}),
        ("chest leads v4–v6", {"V4", "V5", "V6"}),
        ("In v4r", {"V4R"}),
        ("Class I, II and III drugs", set()),
        ("Mobitz I, II", set()),
        ("Type I and II", set()),
        ("I think so", set()),
        ("5 leads", set()),
        ("V1 and 2 mm", {"V1"}),
        ("Stage II or III", set()),
        ("Limb lead I", {"I"}),
    ],
)
def test_leads_as_people_write_them(text, expected):
    assert {lead.name for lead in leads(Text(text).clean)} == expected
