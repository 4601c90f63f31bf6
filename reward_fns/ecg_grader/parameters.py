"""The numbers of the ECG grader, chosen on 438 questions of ECG-Expert-QA (tests/test_ecg_grader.py measures them).

Shares, similarities and severities are in [0, 1] unless a comment says something else. The severity of a contradiction
is 1 where the answer says the opposite of a key fact.
"""

# Coverage: the weighted share of the reference's facts that an answer says (reference.py, match.py, grade.py)
KEY_SENTENCE = 1.0  # weight of a fact in the reference's first sentence
LATER_SENTENCE = 0.5  # weight of a fact in a later sentence
WORD_WEIGHT = 0.3  # factor of that weight for a word that the ontology does not know
FULL_COVERAGE = 0.45  # an answer that covers this share is complete
FINDINGS_COVERAGE = 0.8  # the same for a report, which should name all findings
STRAY = 1.2  # exponent of the coverage: one or two facts that are hit by chance earn little
ASKS_VERDICT = 0.6  # if a reference adds less weight than this to a yes/no question, yes or no is most of the answer
NO_VERDICT = 0.3  # factor of the coverage if such a question gets neither yes nor no
LEFT_OPEN = 0.5  # share of a fact that the answer says and the reference leaves open, or the other way round
RESTATED = 0.1  # with yes or no, the question's own facts earn at most this share of the missing coverage

# Contradictions (match.py, contradictions.py, grade.py)
KEY_CONTRADICTION = 0.9  # from this severity on, a contradiction limits the score ...
CONTRADICTED = 0.01  # ... to at most this
DENIED_FROM = 0.1  # an answer that denies less than this share of the common facts may deny them by accident
DENIED_FROM_IN_DENIAL = 0.5  # the same if the reference denies something itself, or if yes or no agrees
DENIED_IN_FULL = 0.5  # from this share on, the severity of the denial is 1
WORD_DENIED = 0.6  # severity factor if the only thing denied is a word that the ontology does not know
OTHER_STANCE = 0.6  # severity if the answer implies the opposite yes or no without saying it
WEAK_AXIS = 0.3  # severity factor of an opposite direction on an axis such as "often" and "rarely"
OTHER_TARGET = 0.7  # severity factor of an opposite direction of something that is neither wave nor interval
BOTH_WAYS = 0.7  # severity of both directions of the same thing: right answers may compare two states
ELSEWHERE = 0.3  # severity of the opposite direction of something else
OTHER_LEADS = 1.0  # severity of other leads only
MORE_LEADS = 0.6  # severity of other leads beside the right ones, if they are more than ...
COMMON_LEADS = 0.5  # ... this share of all leads that answer and reference name
PART_REPLACED = 0.4  # severity factor if some of the reference's concepts of a kind, but not all, are replaced
WEAK_KIND = 0.5  # severity factor of a replaced concept whose kind allows several at once
OR_ANOTHER_DRUG = 0.6  # severity of "or another drug": right answers name several drugs

# Quantities (quantities.py)
TOLERANCE = 0.05  # two numbers are equal if they differ by at most this share
OVERLAP = 0.8  # two ranges agree if they share at least this part of the wider range

# Copied sentences with other words in them (substitution.py)
FRAME = 0.4, 0.6  # a sentence is copied from the first share of words in the same order on, entirely from the second on
LONGEST = 6  # replaced words, at most: more are a sentence of its own
FRAME_NEIGHBOURS = 2  # words that must be the same beside a replaced word
SWAP_NEIGHBOURS = 3  # the same on each side of a term that the reference has elsewhere: items of a list change places
ENOUGH_REPLACED = 0.3  # from this share of replaced words on, the severity is the highest ...
SUBSTITUTED = 0.85  # ... which is this
LATER_CHANGE = 0.5  # severity of a denial more or less, or of another concept of a kind, in a later sentence

# Similarity in meaning: the cosine of two embeddings (grade.py)
MEANING_SHARE = 0.3  # similarity adds at most this to the score
MEANS = 0.5  # similarity counts from this cosine to the reference on
ALONE = 0.3  # factor of the addition if no fact matches: boilerplate alone can be similar
ADDED = (
    0.15,
    0.5,
)  # cosine of what answer and reference add to the question: counts from the first, fully from the second
ADDED_SIZE = 0.4  # length of what an answer must add to the question; an embedding has length 1
KNOWN_ENOUGH = 0.6  # an answer that covers this share of the ontology's facts is on topic, whatever its embedding
ON_TOPIC = 0.28, 0.44  # an answer is off topic below the first cosine to the reference, on topic from the second on
STRAYED = 0.1  # factor of the score of an answer that is off topic
RIGHT_VERDICT = 0.05  # the right yes or no earns this with any reason ...
RIGHT_VERDICT_AND_MEANING = 0.7  # ... and this with a reason that means the same as the reference's

# The form of an answer (grade.py, reading.py)
LEAST_REASON_WORDS = 5  # words of a reason for a yes or no, at least
SHORT_WORDS = 8  # an answer of at most this many words is short
TELEGRAM_WORDS = 20  # a list of at least so many words ...
TELEGRAM_FUNCTION_WORDS = 0.12  # ... with a smaller share of words such as "the" and "is" is stuffed with terms
SAME_ENTITY = 85  # two entities are the same from this similarity on: rapidfuzz, 0 to 100, words sorted
NEIGHBOURS = 6  # terms and words between a direction and what it is about, at most
