"""What the rules find, without a model of names."""

import pytest

from ssasr.gateway.redaction import spoken
from ssasr.gateway.redaction.detector import Detector
from ssasr.gateway.redaction.names import Entity
from ssasr.gateway.redaction.numbers import iban, luhn, social_security_number
from ssasr.gateway.redaction.policies import LANGUAGES, policies_of

RULES = Detector(None)


def hidden(text, *policies, detector=RULES):
    """The text with the words that fall under the policies in capitals' place: ``_``."""
    words = text.split()
    asked = frozenset(policies) if policies else LANGUAGES["en"]
    found = policies_of(detector.find(words), asked, len(words))
    return " ".join("_" if policy else word for word, policy in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("four one one one", ["4", "1", "1", "1"]),
        ("forty-one eleven", ["41", "11"]),
        ("double seven triple o", ["77", "000"]),
        ("double 3228", ["33228"]),
        ("fort eight", ["48"]),
        ("four hundred and twelve", ["412"]),
        ("two thousand six", ["2006"]),
        ("nineteen eighty five", ["19", "85"]),
        ("4111-1111, 12", ["4111", "", "1111", "12"]),
        ("b as in boy d for delta Z", ["b", "d", "z"]),
        ("the 3rd of May", ["", "3", "", ""]),
    ],
)
def test_reading_aloud(text, codes):
    assert [atom.code for atom in spoken.read(text.split())] == codes


def test_atoms_keep_their_words():
    atoms = spoken.read(["call", "double", "seven", "forty", "two,", "please"])
    assert [(atom.first, atom.last) for atom in atoms] == [(0, 0), (1, 2), (3, 4), (5, 5)]


def test_check_digits():
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert iban("gb82west12345698765432")
    assert not iban("gb82west12345698765433")
    assert social_security_number("123456789")
    assert not social_security_number("666456789")


@pytest.mark.parametrize(
    ("policy", "text", "expected"),
    [
        ("credit_card_number", "it is 4111 1111 1111 1111, ok?", "it is _ _ _ _ ok?"),
        ("credit_card_number", "my card is" + " one" * 8 + " double one one one uh" + " one" * 4,
         "my card is" + " _" * 17),
        ("us_social_security_number", "my social is 123 45 six seven eight nine",
         "my social is _ _ _ _ _ _"),
        ("phone_number", "call me at four one five to three four five six seven eight",
         "call me at _ _ _ _ _ _ _ _ _ _"),
        ("email_address", "it's john dot smith at example dot com, thanks",
         "it's _ _ _ _ _ _ _ thanks"),
        ("email_address", "write to j.doe_99@mail.example.org", "write to _"),
        ("date_of_birth", "born the second of June nineteen ninety", "born the _ _ _ _ _"),
        ("location", "at 742 Evergreen Terrace, Springfield, Illinois 62704.", "at _ _ _ _ _ _"),
        ("ip_address", "ping one ninety two dot one sixty eight dot one dot nine",
         "ping _ _ _ _ _ _ _ _ _ _ _"),
        ("url", "go to www dot example dot com slash help", "go to _ _ _ _ _ _ _"),
        ("passport_number", "my passport is X 1 2 3 4 5 6 7", "my passport is _ _ _ _ _ _ _ _"),
        ("account_number", "the IBAN is GB82 WEST 1234 5698 7654 32", "the IBAN is _ _ _ _ _ _"),
        ("credit_card_cvv", "the security code is three one oh.", "the security code is _ _ _"),
        ("passport_number", "my passport is A 4 3 4 0 4 7 3 7", "my passport is _ _ _ _ _ _ _ _ _"),
        ("ip_address", "it is 197 dot one oh nine dot one five eight dot oh", "it is" + " _" * 11),
        ("location", "I moved to 4978 Lowe Junctions", "I moved to _ _ _"),
        ("organization", "this is Frank from Lopez-Cole", "this is Frank from _"),
        ("credit_card_expiration", "it expires oh nine twenty seven", "it expires _ _ _ _"),
        ("credit_card_expiration", "valid until oh nine 28", "valid until _ _ _"),
        ("username", "the username jdoe44 is mine", "the username _ is mine"),
        ("person_age", "she is forty two years old", "she is _ _ _ _"),
        ("username", "I log in as jdoe44 every day", "I log in as _ every day"),
        ("username", "they gave me jdoe44 as my login", "they gave me _ as my login"),
        ("username", "I log in with the username jdoe44 and forgot the rest",
         "I log in with the username _ and forgot the rest"),
        ("password", "the PIN for the card is nine one one two",
         "the PIN for the card is _ _ _ _"),
        ("password", "my password used to be blue horse", "my password used to be _ _"),
        ("credit_card_cvv", "the three digits on the back are four oh two",
         "the three digits on the back are _ _ _"),
        ("credit_card_cvv", "and the little code is 076", "and the little code is _"),
        ("credit_card_expiration", "the end date is oh nine twenty seven",
         "the end date is _ _ _ _"),
        ("us_social_security_number", "my socia security is thre ate one two won five six sick nin",
         "my socia security is _ _ _ _ _ _ _ _ _"),
        ("phone_number", "call me at four one five, doubl to, sevent nine three four",
         "call me at _ _ _ _ _ _ _ _ _"),
        ("date_of_birth", "Date of birth is Februar 21, nineteen ninet seven",
         "Date of birth is _ _ _ _ _"),
        ("ip_address", "the server is at ten dot oh dart one dot four",
         "the server is at _ _ _ _ _ _ _"),
        ("person_name", "Curtis Moran wants me to call", "_ _ wants me to call"),
        ("person_name", "can you put me through to Beverly, please",
         "can you put me through to _ please"),
        ("organization", "we switched from Hammond, Wallace and Young last month",
         "we switched from _ _ _ _ last month"),
        ("location", "send the bill to sixty three oh three Savannah Tunnel please",
         "send the bill to _ _ _ _ _ _ please"),
        ("password", "my password is blue horse nine and that's it",
         "my password is _ _ _ and that's it"),
        ("person_name", "my name is Ann Lee, that's L E E.", "my name is _ _ that's _ _ _"),
        ("username", "my username, the shell 06 is it", "my username, _ _ _ is it"),
        ("password", "password green three seven", "password _ _ _"),
        ("password", "I type in blue nine four and it says wrong",
         "I type in _ _ _ and it says wrong"),
        ("password", "please reset it to 4071 like before", "please reset it to _ like before"),
        ("username", "I am registered as dianebaldwin on your website",
         "I am registered as _ on your website"),
        ("email_address", "that's ann six it yahoo dot com, ok", "that's _ _ _ _ _ _ ok"),
        ("email_address", "write to tom two one hotmail dot com", "write to _ _ _ _ _ _"),
        ("email_address", "it's ann at gmail dart com", "it's _ _ _ _ _"),
        ("phone_number", "again it's fifty seven twenty for sixty seven forty eight.",
         "again it's _ _ _ _ _ _ _ _"),
        ("us_social_security_number", "the last one was 628 713 44, thank you",
         "the last one was _ _ _ thank you"),
        ("us_social_security_number", "my social is one two double time three four five won and",
         "my social is _ _ _ _ _ _ _ _ and"),
        ("credit_card_cvv", "security code four three uh oh.", "security code _ _ _ _"),
        ("credit_card_expiration", "my card, goo until 04/32.", "my card, goo until _"),
        ("credit_card_expiration", "expires in a four thirty two.", "expires in _ _ _ _"),
        ("date_of_birth", "eleventh of uh April 1964 is mine", "_ _ _ _ _ is mine"),
        ("date_of_birth", "the second of March 1943, it was", "the _ _ _ _ it was"),
        ("phone_number", "call me back on 8706 for double 3228.", "call me back on _ _ _ _"),
        ("phone_number", "it's seven oh five seven in eight six eight two six, ok",
         "it's _ _ _ _ _ _ _ _ _ _ ok"),
        ("us_social_security_number", "the thing is zero shell one five six one eight three one.",
         "the thing is _ _ _ _ _ _ _ _ _"),
        ("date_of_birth", "October 5, ninetee sixty three is my", "_ _ _ _ _ is my"),
        ("credit_card_cvv", "the free members on the Mac are 456.",
         "the free members on the Mac are _"),
        ("credit_card_expiration", "Aire 0231, CBC 227", "Aire _ CBC 227"),
        ("vehicle_id", "my VI and its D-S-N-A-T-3-F-R-1-Y-R-4-T-I-N-E-R-O-3-3", "my VI and its _"),
        ("passport_number", "the previous was K 8 2 7 1 3 2 4 3, I have it",
         "the previous was _ _ _ _ _ _ _ _ _ I have it"),
        ("location", "and I live at 42 ever green terrace, spring field.",
         "and I live at _ _ _ _ _ _"),
        ("blood_type", "my blood type is O negative", "my blood type is _ _"),
        ("money_amount", "it costs $45.00 or fifty dollars", "it costs _ or _ _"),
    ],
)  # fmt: skip
def test_each_policy(policy, text, expected):
    assert hidden(text, policy) == expected
    assert hidden(text) != text, "and with all of them"


PERSONAL = LANGUAGES["en"] - {"date", "money_amount", "time", "duration", "number_sequence"}


@pytest.mark.parametrize(
    "text",
    [
        "The price is three hundred and forty five dollars.",
        "Room four twelve is on the fourth floor.",
        "Will you come in May? 1998 was a great year.",
        "The rose bushes will bloom, and I may march on.",
        "We sold 25,000 units at 12 percent.",
        "Turn to page one hundred and six.",
        "What is the username? I forgot it.",
        "My password doesn't work, and the username field is empty.",
        "Summer is here, Grace is a virtue, and the bill is paid.",
        "The license plate holder fell off.",
    ],
)
def test_what_belongs_to_nobody(text):
    assert hidden(text, *PERSONAL) == text


class Names:
    """A model of names, of two people or more."""

    policies = frozenset({"person_name", "location"})

    def __init__(self):
        self.asked = 0

    def __call__(self, words):
        self.asked += 1
        return [Entity("PERSON", 1, 2), Entity("GPE", 4, 4)]


def test_a_model_is_asked_only_for_what_it_finds():
    detector = Detector(Names())
    words = ["and", "my", "pin", "is", "1234"]
    detector.find(words, frozenset({"password"}))
    assert detector.names.asked == 0
    detector.find(words, frozenset({"password", "location"}))
    assert detector.names.asked == 1


def test_a_models_labels():
    detector = Detector(Names())
    assert hidden("Ask Ann Lee in Rome", "person_name", detector=detector) == "Ask _ _ in Rome"
    assert hidden("Ask Ann Lee in Rome", "location", detector=detector) == "Ask Ann Lee in _"
