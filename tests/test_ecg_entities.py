"""Lists of medical entities: which are the same, and how they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_fns.ecg_grader.entities import entity_f1, split_entities

THREE = ["sinus rhythm", "left axis deviation", "LVH"]


@pytest.mark.parametrize(
    ("entity", "other"),
    [
        ("left bundle branch block", "right bundle branch block"),
        ("hypermagnesemia", "hypomagnesemia"),
        ("hypertensive crisis", "hypotensive crisis"),
        ("second-degree AV block", "third-degree AV block"),
        ("Mobitz type I", "Mobitz type II"),
        ("left atrial enlargement", "right atrial enlargement"),
        ("atrial flutter", "no atrial flutter"),
        ("complete LBBB", "incomplete LBBB"),
        ("STEMI", "NSTEMI"),
        ("stable angina", "unstable angina"),
        ("elevated troponin", "reduced troponin"),
        ("lead V3", "lead V4"),
        ("heart rate 60 bpm", "heart rate 160 bpm"),
        ("QTc 400 ms", "QTc 500 ms"),
        ("45 years", "54 years"),
        ("2024-03-12", "2024-08-12"),
        ("systolic murmur", "diastolic murmur"),
        ("anterior leaflet", "posterior leaflet"),
        ("symptomatic", "asymptomatic"),
        ("endocarditis", "pericarditis"),
        ("ST depression", "ST elevation"),
        ("supraventricular tachycardia", "ventricular tachycardia"),
        ("regular rhythm", "irregular rhythm"),
        ("prolonged PR interval", "shortened PR interval"),
        ("5 mg bisoprolol", "50 mg bisoprolol"),
    ],
)
def test_opposites_are_not_the_same(entity, other):
    assert entity_f1([entity], [other]) == entity_f1([other], [entity]) == 0


@pytest.mark.parametrize(
    ("entity", "other"),
    [
        ("RBBB", "right bundle branch block"),
        ("AF", "atrial fibrillation"),
        ("LVH", "left ventricular hypertrophy"),
        ("hypokalaemia", "hypokalemia"),
        ("PVCs", "premature ventricular contractions"),
        ("chest pains", "Chest pain"),
        ("PR interval 160 ms", "PR interval 0.16 s"),
        ("ST-segment elevation", "elevation of the ST segment"),
        ("dizzyness", "dizziness"),
    ],
)
def test_other_spellings_are_the_same(entity, other):
    assert entity_f1([entity], [other]) == entity_f1([other], [entity]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "sinus rhythm, left axis deviation, LVH",
        "sinus rhythm; left axis deviation; LVH",
        "sinus rhythm\nleft axis deviation\nLVH",
        "1. sinus rhythm\n2. left axis deviation\n3. LVH",
        "1) sinus rhythm 2) left axis deviation 3) LVH",
        "* sinus rhythm\n* left axis deviation\n* LVH",
        "- sinus rhythm\n- left axis deviation\n- LVH",
        "The entities are: sinus rhythm, left axis deviation and LVH.",
        "The findings include sinus rhythm, left axis deviation, and LVH.",
        "Entities:\n• sinus rhythm\n• left axis deviation\n• LVH",
        '["sinus rhythm", "left axis deviation", "LVH"]',
        "['sinus rhythm', 'left axis deviation', 'LVH']",
        '```json\n["sinus rhythm", "left axis deviation", "LVH"]\n```',
    ],
)
def test_layouts(text):
    assert entity_f1(split_entities(text), THREE) == 1


def test_an_and_may_belong_to_an_entity():
    assert entity_f1(["nausea and vomiting"], ["nausea and vomiting"]) == 1


@given(st.lists(st.text(max_size=30), max_size=5), st.lists(st.text(max_size=30), max_size=5))
def test_f1_is_a_share(predicted, expected):
    assert 0 <= entity_f1(predicted, expected) <= 1


@given(st.text(max_size=200))
def test_any_text_is_a_list(text):
    assert all(item.strip() == item and item for item in split_entities(text))
